"""How much is measured: enough rounds for a median, in less than ten minutes on two cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Plan:
    """Lengths in tokens; `rounds` by concurrency. A round is one wave of requests to each system in turn."""

    prompt_tokens: int = 256
    output_tokens: int = 128
    rounds: Mapping[int, int] = field(default_factory=lambda: {1: 7, 8: 5, 32: 3})
    prefix_concurrency: int = 8
    prefix_cache_bytes: int = 384 << 20
    filling_waves: int = 10
    """Together they are more tokens than the cache of the prefix-cache experiments holds."""
    miss_rounds: int = 40
    miss_output_tokens: int = 16
    hit_rounds: int = 4
    shared_prefix_tokens: int = 1024
    own_tokens: int = 112
    hit_output_tokens: int = 64
    starts: int = 2
    """Starts of our server; the last is the one that counts, with machine code and page cache in place."""

    @property
    def widest(self) -> int:
        return max(self.rounds)

    @property
    def hit_share(self) -> float:
        """The share of a prompt's tokens that the cache can have."""
        return self.shared_prefix_tokens / (self.shared_prefix_tokens + self.own_tokens)

    @classmethod
    def quick(cls) -> Plan:
        """One look, for whoever is tuning."""
        return cls(rounds={1: 3, 8: 2, 32: 1}, miss_rounds=4, hit_rounds=1, starts=1)
