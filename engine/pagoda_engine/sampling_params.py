"""How one request wants its tokens chosen and where it ends. Standard library only: both processes read it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The choices of one request, in the names and meanings of vLLM's and OpenAI's parameters.

    `temperature` 0 is greedy. `top_k` 0 is off, `top_p` 1 is off, `min_p` 0 is off; the three filters apply in that
    order after the temperature. The random stream depends on `seed` and the token's position alone, so equal seeds
    give equal text in any batch; without a seed the engine derives one.

    Before that, logits are changed in vLLM's order: only `allowed_token_ids` stay possible; `bad_words` can't be
    completed (nor `bad_token_ids`, which are the same as tokens: who has the tokenizer makes them of the words);
    `logit_bias` is added by token id; `repetition_penalty` divides positive logits of tokens that prompt or output hold
    and multiplies negative ones; `frequency_penalty` is subtracted once for each occurrence in the output,
    `presence_penalty` once for all of them.

    `logprobs` asks for the log-probability of each generated token and of that many likeliest ones beside it,
    `prompt_logprobs` for the same of each prompt token but the first; both are the model's own, before all that. A
    prompt that is scored is computed anew, never taken from the prefix cache.

    `max_tokens` and `min_tokens` count generated tokens. EOS and `stop_token_ids` end a request with reason `stop` (EOS
    not with `ignore_eos`); the ending token is not part of the text. `stop` strings are looked for where text exists:
    in the HTTP process or `LLM`, not the core.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    bad_token_ids: tuple[tuple[int, ...], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
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
    def penalised(self) -> bool:
        """Whether tokens that are there already count against themselves."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def reads_history(self) -> bool:
        """Whether choosing a token takes the one before it on the host: then its step does not overlap the next."""
        return self.penalised or any(len(sequence) > 1 for sequence in self.bad_token_ids)

    @property
    def edits_logits(self) -> bool:
        """Whether logits are changed before a token is chosen, at every position."""
        return self.penalised or bool(self.logit_bias or self.bad_token_ids) or self.allowed_token_ids is not None

    def problem(self, vocab_size: int | None = None) -> str | None:
        """The first value out of range as a sentence naming field, value and range, or None.

        With `vocab_size`, token ids that the model does not have are out of range.
        """
        return next(self._problems(vocab_size), None)

    def _problems(self, vocab_size: int | None) -> Iterator[str]:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            yield f"temperature is {self.temperature}; it must be 0 or more"
        if not 0 < self.top_p <= 1:
            yield f"top_p is {self.top_p}; it must be above 0 and at most 1"
        if self.top_k < 0:
            yield f"top_k is {self.top_k}; it must be 0 (off) or more"
        if not 0 <= self.min_p <= 1:
            yield f"min_p is {self.min_p}; it must be from 0 to 1"
        if not 0 < self.repetition_penalty < math.inf:
            yield f"repetition_penalty is {self.repetition_penalty}; it must be above 0, and 1 is off"
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                yield f"{name} is {getattr(self, name)}; it must be from -2 to 2"
        for token, bias in self.logit_bias.items():
            if not -100 <= bias <= 100:
                yield f"logit_bias of token {token} is {bias}; it must be from -100 to 100"
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            yield "allowed_token_ids is empty; name at least one token, or leave it out"
        for name in ("bad_words", "bad_token_ids"):
            if not all(getattr(self, name)):
                yield f"{name} holds an empty one; leave it out"
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and count < 0:
                yield f"{name} is {count}; it must be 0 or more"
        if self.max_tokens < 1:
            yield f"max_tokens is {self.max_tokens}; it must be at least 1"
        if not 0 <= self.min_tokens <= self.max_tokens:
            yield f"min_tokens is {self.min_tokens}; it must be from 0 to max_tokens, {self.max_tokens}"
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            yield f"seed is {self.seed}; it must fit in 64 bits"
        if any(not text for text in self.stop):
            yield "stop holds an empty string; leave it out"
        yield from self._strangers(vocab_size)

    def _strangers(self, vocab_size: int | None) -> Iterator[str]:
        """Token ids that no vocabulary has, or this one has not."""
        for name, ids in (
            ("stop_token_ids", self.stop_token_ids),
            ("logit_bias", self.logit_bias),
            ("allowed_token_ids", self.allowed_token_ids or ()),
            ("bad_token_ids", [token for sequence in self.bad_token_ids for token in sequence]),
        ):
            if ids and min(ids) < 0:
                yield f"{name} holds {min(ids)}; token ids are not negative"
            if ids and vocab_size is not None and max(ids) >= vocab_size:
                yield f"{name} holds token id {max(ids)}; the model has {vocab_size} tokens, from 0 to {vocab_size - 1}"
