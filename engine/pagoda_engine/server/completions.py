"""`POST /v1/completions`."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pagoda_engine.process.client import Prompt
from pagoda_engine.server.answers import Answer
from pagoda_engine.server.body import read_body
from pagoda_engine.server.connection import EventStream, while_connected
from pagoda_engine.server.errors import invalid
from pagoda_engine.server.protocol import CompletionBody
from pagoda_engine.server.responses import Envelope, text_choice
from pagoda_engine.server.sampling import check_counts, check_token_ids, make_prompts
from pagoda_engine.server.state import Serving, serving_of

router = APIRouter()


@router.post("/v1/completions", response_model=None)
async def completions(request: Request) -> Response:
    serving = serving_of(request)
    body = await read_body(request, CompletionBody, serving.limits)
    name = serving.check_model(body.model)
    serving.check_priority(body.priority)
    given = prompt_list(body)
    check_counts(body, len(given), serving.limits)
    serving.admit(len(given) * (body.n or 1))
    prompts: list[Prompt] = []
    prompt_tokens = 0
    for prompt in given:
        token_ids = await _encode(prompt, body, serving)
        prompt_tokens += len(token_ids)
        prompts += make_prompts(body, token_ids, serving.text_model, "prompt")
    serving.admit(len(prompts))
    answer = Answer(
        serving,
        Envelope("text_completion", name, "cmpl"),
        prompts,
        prompt_tokens,
        _leads(given, body, serving),
        with_token_ids=bool(body.return_token_ids),
    )
    choice = partial(text_choice, echo=bool(body.echo), with_prompt_logprobs=body.prompt_logprobs is not None)
    if body.stream:
        return EventStream(answer.events(body, choice))
    return JSONResponse(await while_connected(request.receive, answer.whole(choice)))


def prompt_list(body: CompletionBody) -> list[str | list[int]]:
    """The prompts of any of the four forms. Raises ApiError 400 where there is none, or an empty one."""
    prompt: Any = body.prompt
    single = isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], int))
    prompts = [prompt] if single else list(prompt)
    if not prompts or not all(prompts):
        raise invalid("prompt is empty; it must hold at least one character or token id.", "prompt")
    return prompts


async def _encode(prompt: str | list[int], body: CompletionBody, serving: Serving) -> list[int]:
    if isinstance(prompt, str):
        return await serving.text_model.encode(prompt, add_special_tokens=body.add_special_tokens is not False)
    check_token_ids(prompt, serving.text_model.vocab_size, "prompt")
    return prompt


def _leads(given: list[str | list[int]], body: CompletionBody, serving: Serving) -> list[str]:
    """What `echo` puts before each choice."""
    if not body.echo:
        return []
    skip = body.skip_special_tokens is not False
    texts = (one if isinstance(one, str) else serving.text_model.decode(one, skip_special=skip) for one in given)
    return [text for text in texts for _ in range(body.n or 1)]
