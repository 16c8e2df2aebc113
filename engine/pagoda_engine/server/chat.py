"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pagoda_engine.server.answers import Answer
from pagoda_engine.server.body import read_body
from pagoda_engine.server.choices import Piece
from pagoda_engine.server.connection import EventStream, while_connected
from pagoda_engine.server.errors import invalid
from pagoda_engine.server.limits import Limits
from pagoda_engine.server.protocol import ChatBody, ChatMessage
from pagoda_engine.server.responses import Envelope, chat_choice, chat_delta
from pagoda_engine.server.sampling import check_counts, make_prompts
from pagoda_engine.server.state import serving_of

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def chat(request: Request) -> Response:
    serving = serving_of(request)
    body = await read_body(request, ChatBody, serving.limits)
    name = serving.check_model(body.model)
    serving.check_priority(body.priority)
    check_counts(body, 1, serving.limits)
    messages = template_messages(body, serving.limits)
    serving.admit(body.n or 1)
    model = serving.text_model
    token_ids = await model.encode_chat(
        messages,
        add_generation_prompt=body.add_generation_prompt is not False,
        add_special_tokens=bool(body.add_special_tokens),
        variables=body.chat_template_kwargs,
    )
    prompts = make_prompts(body, token_ids, model, "messages")
    serving.admit(len(prompts))
    answer = Answer(
        serving,
        Envelope("chat.completion", name, "chatcmpl"),
        prompts,
        len(token_ids),
        with_token_ids=bool(body.return_token_ids),
        with_prompt_logprobs=body.prompt_logprobs is not None,
    )
    if body.stream:
        opening = [chat_delta(Piece(index, "", 0), first=True) for index in range(len(prompts))]
        return EventStream(answer.events(body, chat_delta, opening, suffix=".chunk"))
    return JSONResponse(await while_connected(request.receive, answer.whole(chat_choice)))


def template_messages(body: ChatBody, limits: Limits) -> list[dict[str, Any]]:
    """The messages as a template reads them. Raises ApiError 400 for what can't be said to a model of text."""
    if not body.messages:
        raise invalid("messages is empty; it must hold at least one message.", "messages")
    if len(body.messages) > limits.messages:
        count = len(body.messages)
        raise invalid(f"messages holds {count} messages; at most {limits.messages} are allowed.", "messages")
    return [_message(index, message) for index, message in enumerate(body.messages)]


def _message(index: int, message: ChatMessage) -> dict[str, Any]:
    for field in ("tool_calls", "function_call"):
        if (message.model_extra or {}).get(field):
            raise invalid(f"messages[{index}].{field} is not supported by this server; leave it out.", "messages")
    if message.content is None and message.role != "assistant":
        raise invalid(f"messages[{index}].content is missing; it must be a string or text parts.", "messages")
    named = {} if message.name is None else {"name": message.name}
    return {"role": message.role, "content": message.text, **named}
