"""What a benchmark asks for: random prompts of exact lengths, and answers of exact lengths."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

_SHARED_SEED: Final = 20_000_003


@dataclass(frozen=True, slots=True)
class Workload:
    """Lengths in tokens. The first `shared_prefix_tokens` of every prompt are the same, the others are its own.

    Token ids come from the middle half of the vocabulary: special tokens stand at its ends.
    """

    prompt_tokens: int
    output_tokens: int
    vocabulary_size: int
    shared_prefix_tokens: int = 0

    def prompts(self, count: int, seed: int) -> list[list[int]]:
        """`count` prompts that `seed` alone decides. The shared prefix is the same for every seed."""
        ids = range(self.vocabulary_size // 4, self.vocabulary_size * 3 // 4)
        prefix = random.Random(_SHARED_SEED).choices(ids, k=self.shared_prefix_tokens)
        draw = random.Random(seed)
        own = self.prompt_tokens - self.shared_prefix_tokens
        return [prefix + draw.choices(ids, k=own) for _ in range(count)]

    def problem(self) -> str | None:
        """The first number out of range as a sentence naming it, its value and its range, or None."""
        for name in ("prompt_tokens", "output_tokens"):
            if getattr(self, name) < 1:
                return f"{name} is {getattr(self, name)}; it must be at least 1"
        if self.vocabulary_size < 4:
            return f"vocabulary_size is {self.vocabulary_size}; it must be at least 4"
        if not 0 <= self.shared_prefix_tokens <= self.prompt_tokens:
            return (
                f"shared_prefix_tokens is {self.shared_prefix_tokens}; it must be from 0 to prompt_tokens, "
                f"{self.prompt_tokens}"
            )
        return None
