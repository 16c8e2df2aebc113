"""A request on its way through the engine: the tokens there are, and how many of them have been computed."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import StrEnum

from pagoda_engine.core.logprobs import Logprobs
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
    """One sequence. There are no phases: work is what lies between `computed` and its length.

    A long prompt is many pending tokens, decoding is one pending token, a preempted request is `computed = 0`.
    A token that is being made already counts as pending before anybody knows it: it is `in_flight`.
    `arrival_time` is `time.monotonic()` (one clock for all processes of a machine), in seconds. The lowest `priority`
    is served first, where the scheduler goes by it. `cache_salt` keeps a request's cached blocks to those who name the
    same salt.
    """

    id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    eos_token_ids: frozenset[int]
    arrival_time: float
    priority: int = 0
    cache_salt: str = ""

    tokens: array[int] = field(init=False)
    """Prompt, then what was generated, as far as it is known here. 64 bits each, which kernels read as they are."""
    in_flight: int = field(init=False, default=0)
    """Tokens after `tokens` that launched steps will have made; 0 or 1 whenever a step is scheduled."""
    computed: int = field(init=False, default=0)
    """Leading tokens whose keys and values are in `blocks`, once all launched steps are over."""
    blocks: list[int] = field(init=False, default_factory=list)
    """The block table: token i lives in block `blocks[i // block_size]`."""
    shared: int = field(init=False, default=0)
    """Leading blocks that were found in the cache."""
    block_hashes: list[bytes] = field(init=False, default_factory=list)
    """Chained hashes of the leading full blocks of `tokens`, as far as they were needed."""
    started_time: float | None = field(init=False, default=None)
    """When it was first scheduled."""
    turn: tuple[int, int] = field(init=False, default=(0, 0))
    """Its place in line, given by the scheduler: priority, then order of arrival."""
    longest: int = field(init=False, default=0)
    """The most tokens that it may have in the cache, given by the scheduler; the last one made is never computed."""
    seed: int = field(init=False, default=0)
    """The seed in use: the request's own, or the engine's for it."""
    stop_ids: frozenset[int] = field(init=False)
    """The tokens that end this request."""
    prompt_logprobs: list[Logprobs] = field(init=False, default_factory=list)
    """Of the prompt's second token and those after it, as far as they were asked for and are known."""

    def __post_init__(self) -> None:
        self.tokens = array("q", self.prompt_token_ids)
        eos = frozenset[int]() if self.params.ignore_eos else self.eos_token_ids
        self.stop_ids = eos.union(self.params.stop_token_ids)

    @property
    def length(self) -> int:
        """Tokens that there are, those in flight among them."""
        return len(self.tokens) + self.in_flight

    @property
    def pending(self) -> int:
        """Tokens to compute. None while the token in flight is its last by length: nothing comes after that."""
        return min(self.length, self.longest) - self.computed

    @property
    def unscored(self) -> int:
        """Prompt tokens whose log-probabilities are wanted and not known yet; the first token has none."""
        if self.params.prompt_logprobs is None:
            return 0
        return len(self.prompt_token_ids) - 1 - len(self.prompt_logprobs)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.prompt_token_ids)
