"""How one request wants its tokens chosen and where it ends. Standard library only: both processes read it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The choices of one request, in the names and meanings of vLLM's and OpenAI's parameters.

    `temperature` 0 is greedy. `top_k` 0 is off, `top_p` 1 is off, `min_p` 0 is off; the three filters apply in that
    order after the temperature. The random stream depends on `seed` and the token's position alone, so equal seeds
    give equal text in any batch; without a seed the engine derives one. `max_tokens` and `min_tokens` count generated
    tokens. EOS and `stop_token_ids` end a request with reason `stop` (EOS not with `ignore_eos`); the ending token is
    not part of the text. `stop` strings are looked for where text exists: in the HTTP process or `LLM`, not the core.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int = 16
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def reads_history(self) -> bool:
        """Whether choosing a token takes the one before it on the host: then its step does not overlap the next."""
        return False

    def problem(self) -> str | None:
        """The first value out of range as a sentence naming field, value and range, or None."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            return f"temperature is {self.temperature}; it must be 0 or more"
        if not 0 < self.top_p <= 1:
            return f"top_p is {self.top_p}; it must be above 0 and at most 1"
        if self.top_k < 0:
            return f"top_k is {self.top_k}; it must be 0 (off) or more"
        if not 0 <= self.min_p <= 1:
            return f"min_p is {self.min_p}; it must be from 0 to 1"
        if self.max_tokens < 1:
            return f"max_tokens is {self.max_tokens}; it must be at least 1"
        if not 0 <= self.min_tokens <= self.max_tokens:
            return f"min_tokens is {self.min_tokens}; it must be from 0 to max_tokens, {self.max_tokens}"
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            return f"seed is {self.seed}; it must fit in 64 bits"
        if any(not text for text in self.stop):
            return "stop holds an empty string; leave it out"
        if any(token < 0 for token in self.stop_token_ids):
            return f"stop_token_ids holds {min(self.stop_token_ids)}; token ids are not negative"
        return None
