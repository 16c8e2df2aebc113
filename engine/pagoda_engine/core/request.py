"""A request on its way through the engine: the tokens there are, and how many of them have been computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pagoda_engine.sampling_params import SamplingParams


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"
    """EOS or a stop token."""
    LENGTH = "length"
    """`max_tokens`, or the model's longest sequence."""
    ABORT = "abort"
    ERROR = "error"
    """See the output's `error`; the requests beside it go on."""


@dataclass(eq=False, slots=True)
class Request:
    """One sequence. There are no phases: work is what lies between `computed` and `len(tokens)`.

    A long prompt is many pending tokens, decoding is one pending token, a preempted request is `computed = 0`.
    `arrival_time` is `time.monotonic()` (one clock for all processes of a machine), in seconds. `cache_salt` keeps a
    request's cached blocks to those who name the same salt.
    """

    id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    eos_token_ids: frozenset[int]
    arrival_time: float
    cache_salt: str = ""

    tokens: list[int] = field(init=False)
    """Prompt, then what was generated."""
    computed: int = field(init=False, default=0)
    """Leading tokens whose keys and values are in `blocks`."""
    blocks: list[int] = field(init=False, default_factory=list)
    """The block table: token i lives in block `blocks[i // block_size]`."""
    block_hashes: list[bytes] = field(init=False, default_factory=list)
    """Chained hashes of the leading full blocks of `tokens`, as far as they were needed."""
    started_time: float | None = field(init=False, default=None)
    """When it was first scheduled."""
    sequence: int = field(init=False, default=0)
    """Order of arrival, given by the scheduler."""
    seed: int = field(init=False, default=0)
    """The seed in use: the request's own, or the engine's for it."""

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt_token_ids)

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.prompt_token_ids)

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end this request."""
        eos = frozenset[int]() if self.params.ignore_eos else self.eos_token_ids
        return eos.union(self.params.stop_token_ids)
