"""From a validated body and a tokenised prompt to the engine's `SamplingParams`, within this model's limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pagoda_engine.process.client import Prompt
from pagoda_engine.sampling_params import SamplingParams
from pagoda_engine.server.errors import context_too_long, invalid
from pagoda_engine.server.limits import Limits
from pagoda_engine.server.protocol import ChatBody, GenerationBody
from pagoda_engine.server.text_model import TextModel

COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for /v1/completions; a chat's default is whatever the context leaves."""


def check_counts(body: GenerationBody, prompts: int, limits: Limits) -> None:
    """Raises ApiError 400 where a body asks for too many of something."""
    if prompts * (body.n or 1) > limits.prompts or (body.n or 1) > limits.n:
        asked = f"n is {body.n or 1} for {prompts} prompt(s)"
        allowed = f"at most {limits.n} a prompt and {limits.prompts} in all"
        raise invalid(f"{asked}; {allowed} are allowed.", "n")
    if len(body.stop_strings) > limits.stop_strings:
        raise invalid(f"stop has {len(body.stop_strings)} strings; at most {limits.stop_strings} are allowed.", "stop")
    if any(len(stop) > limits.stop_string_chars for stop in body.stop_strings):
        raise invalid(f"A stop string is longer than the {limits.stop_string_chars} characters allowed.", "stop")
    if not all(body.stop_strings):
        raise invalid("stop holds an empty string; leave it out.", "stop")
    for name in ("stop_token_ids", "logit_bias", "allowed_token_ids", "bad_words"):
        count, most = len(getattr(body, name) or ()), getattr(limits, name)
        if count > most:
            raise invalid(f"{name} has {count} entries; at most {most} are allowed.", name)
    if any(len(word) > limits.bad_word_chars for word in body.bad_words or ()):
        raise invalid(f"bad_words holds one longer than the {limits.bad_word_chars} characters allowed.", "bad_words")
    _check_logprobs(body, limits)


def _check_logprobs(body: GenerationBody, limits: Limits) -> None:
    if isinstance(body, ChatBody) and body.top_logprobs and not body.logprobs:
        raise invalid(f"top_logprobs is {body.top_logprobs} and logprobs is not set; set it to true.", "top_logprobs")
    if body.prompt_logprobs is not None and body.stream:
        raise invalid(
            "prompt_logprobs do not come in a stream; leave out stream, or prompt_logprobs.", "prompt_logprobs"
        )
    counts = {"prompt_logprobs": body.prompt_logprobs}
    counts["top_logprobs" if isinstance(body, ChatBody) else "logprobs"] = body.wanted_logprobs
    for name, count in counts.items():
        if count is not None and count > limits.logprobs:
            raise invalid(f"{name} is {count}; at most {limits.logprobs} are allowed.", name)


def check_token_ids(token_ids: Sequence[int], vocab_size: int, param: str) -> None:
    """Raises ApiError 400 for an id that the model has no embedding for."""
    if token_ids and max(token_ids) >= vocab_size:
        raise invalid(f"{param} holds token id {max(token_ids)}; the model has {vocab_size} tokens.", param)


def make_prompts(body: GenerationBody, token_ids: list[int], model: TextModel, param: str) -> list[Prompt]:
    """`n` sequences to generate for one prompt. Raises ApiError 400 for what does not fit."""
    if not token_ids:
        raise invalid(f"{param} is empty; it must come to at least one token.", param)
    room = model.context_tokens - len(token_ids)
    if room < 1:
        raise context_too_long(
            f"This model's maximum context length is {model.context_tokens} tokens. "
            f"However, the {param} came to {len(token_ids)} tokens, which leaves no room for an answer. "
            f"Shorten the {param}.",
            param,
        )
    params = _params(body, model, _max_tokens(body, room, len(token_ids), model))
    if problem := params.problem(model.vocab_size):
        raise invalid(problem, problem.split(" ", 1)[0])
    return [
        Prompt(token_ids, _reseed(params, index), body.priority or 0, body.cache_salt or "")
        for index in range(body.n or 1)
    ]


def _max_tokens(body: GenerationBody, room: int, prompt_tokens: int, model: TextModel) -> int:
    name, asked = "max_tokens", body.max_tokens
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        name, asked = "max_completion_tokens", body.max_completion_tokens
    if asked is None:
        own = COMPLETION_MAX_TOKENS
        if isinstance(body, ChatBody):
            own = int(model.sampling_defaults.get("max_new_tokens", room))
        return min(room, own)
    if asked > room:
        raise context_too_long(
            f"{name} is {asked}, and the prompt has {prompt_tokens} tokens; this model's maximum context length is "
            f"{model.context_tokens} tokens, so {name} may be at most {room}.",
            name,
        )
    return asked


def _params(body: GenerationBody, model: TextModel, max_tokens: int) -> SamplingParams:
    defaults = model.sampling_defaults
    top_k = int(_given(body.top_k, defaults.get("top_k", 0)))
    return SamplingParams(
        temperature=_given(body.temperature, defaults.get("temperature", 1.0)),
        top_p=_given(body.top_p, defaults.get("top_p", 1.0)),
        top_k=max(top_k, 0),  # vLLM's -1 is off, too
        min_p=_given(body.min_p, defaults.get("min_p", 0.0)),
        repetition_penalty=_given(body.repetition_penalty, defaults.get("repetition_penalty", 1.0)),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=body.logit_bias or {},
        allowed_token_ids=None if body.allowed_token_ids is None else tuple(body.allowed_token_ids),
        bad_words=tuple(body.bad_words or ()),
        bad_token_ids=model.bad_token_ids(body.bad_words or ()),
        logprobs=body.wanted_logprobs,
        prompt_logprobs=body.wanted_prompt_logprobs,
        seed=body.seed,
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        stop=body.stop_strings,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        skip_special_tokens=body.skip_special_tokens is not False,
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _reseed(params: SamplingParams, index: int) -> SamplingParams:
    """The choices of one prompt differ, also with a seed: each has the next one, as in vLLM."""
    if params.seed is None or index == 0:
        return params
    return dataclasses.replace(params, seed=(params.seed + index + 2**63) % 2**64 - 2**63)
