"""The messages between the HTTP process and the engine process, and their form on the wire.

A message travels as a msgpack array `[type's number, field, field, ...]`: data only, no class names and no code, so
that nothing that a client sends can ever be more than data. Both ends are the same version of the same package, so
fields are positional and there is no schema negotiation.

    engine -> HTTP:  Loading*  ->  Ready  ->  Stepped*      or, at any time,  Failed
    HTTP -> engine:  Commands*
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from pagoda_engine.core.logprobs import Logprobs


@dataclass(frozen=True, slots=True)
class Loading:
    """How far the engine process is on its way to ready; `stage` is a `contract.Stage`."""

    stage: str
    percent: float | None
    message: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine takes requests. Everything that the HTTP process must know of the model.

    `tokenizer` is the JSON of a `tokenizers.Tokenizer`; `special_tokens` are the names that chat templates use, such as
    `bos_token`; `sampling_defaults` are the model's own defaults of temperature, top_p, top_k, min_p,
    repetition_penalty, and max_new_tokens, with which a chat ends that names no other limit.
    """

    tokenizer: str
    chat_template: str
    special_tokens: dict[str, str]
    sampling_defaults: dict[str, float]
    vocab_size: int
    max_model_len: int
    num_blocks: int
    block_size: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine process is about to end by itself: `exit_code` is a `contract.ExitCode`, `message` is for the user."""

    exit_code: int
    message: str


@dataclass(frozen=True, slots=True)
class Output:
    """What one step did for one request: a `core.engine.RequestOutput`."""

    request_id: str
    token_ids: list[int]
    finish_reason: str | None
    error: str | None
    stop_token_id: int | None
    queue_seconds: float | None
    logprobs: list[Logprobs] = field(default_factory=list)
    prompt_logprobs: list[Logprobs] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step's outputs, and the engine's numbers after it.

    `requests_seen` and `aborts_seen` count what the engine has read since it started, so that the HTTP process knows
    what is still on its way: such requests are waiting too, and an engine that does not read is stuck.
    """

    outputs: list[Output]
    requests_seen: int
    aborts_seen: int
    running: int
    waiting: int
    kv_usage: float
    preemptions: int
    prefix_queries: int
    prefix_hits: int
    late_compiles: int


@dataclass(frozen=True, slots=True)
class Submit:
    """A request: a validated prompt, and the fields of a `SamplingParams` by name, its tables as lists of pairs."""

    request_id: str
    prompt_token_ids: list[int]
    params: dict[str, Any]
    arrival_time: float
    priority: int
    cache_salt: str


@dataclass(frozen=True, slots=True)
class Commands:
    """What has come up since the last frame: at most one frame an iteration of the event loop."""

    submit: list[Submit]
    abort: list[str]


Message = Loading | Ready | Failed | Stepped | Commands

_TYPES: Final[tuple[type[Any], ...]] = (Loading, Ready, Failed, Stepped, Commands)
_NESTED: Final[dict[type[Any], dict[int, type[Any]]]] = {
    Stepped: {0: Output},
    Commands: {0: Submit},
    Output: {6: Logprobs, 7: Logprobs},
}
"""The fields, by position, that are lists of messages themselves."""


class BadMessage(ValueError):
    """A frame that is not one of our messages: the other end is not what it should be."""


def encode(message: Message) -> bytes:
    """A message as msgpack, without the frame's length."""
    packed: bytes = msgpack.packb([_TYPES.index(type(message)), *_values(message)])
    return packed


def decode(payload: bytes) -> Message:
    """The inverse of `encode`. Raises BadMessage."""
    try:
        number, *values = msgpack.unpackb(payload)
        message: Message = _made(_TYPES[number], values)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise BadMessage(f"not a message of this protocol ({error}): {payload[:40]!r}") from error
    return message


def _values(item: Any) -> list[Any]:
    kind = type(item)
    values = [getattr(item, name) for name in _FIELDS[kind]]
    for position in _NESTED.get(kind, ()):
        values[position] = [_values(one) for one in values[position]]
    return values


def _made(kind: type[Any], values: list[Any]) -> Any:
    for position, item_type in _NESTED.get(kind, {}).items():
        values[position] = [_made(item_type, one) for one in values[position]]
    return kind(*values)


_FIELDS: Final[dict[type[Any], tuple[str, ...]]] = {
    kind: tuple(f.name for f in dataclasses.fields(kind)) for kind in (*_TYPES, Output, Submit, Logprobs)
}
