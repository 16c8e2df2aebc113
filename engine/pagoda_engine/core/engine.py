"""The engine core: schedule, run, commit. One call of `step` is one pass of the model."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda_engine.core.request import FinishReason


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """What one step made of one request.

    `token_ids` are the new tokens, without the token that stopped it (that is `stop_token_id`). The last output of a
    request has a `finish_reason`; an `error` says what to do about it. `queue_seconds`, from arrival to the first
    time on the device, comes with the request's first output.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    error: str | None = None
    stop_token_id: int | None = None
    queue_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's state between two steps. `kv_usage` is 0 to 1; `preemptions` counts from the start."""

    running: int
    waiting: int
    kv_usage: float
    num_blocks: int
    block_size: int
    preemptions: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the HTTP process must know of the engine to refuse what can't be served.

    `max_model_len` bounds prompt and output together, in tokens. `eos_token_ids` are the model's (config and
    generation config).
    """

    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    num_blocks: int
    block_size: int
