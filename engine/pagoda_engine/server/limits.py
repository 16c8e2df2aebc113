"""Every bound on what a client may send, in one table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, characters, counts and seconds. What a limit protects stands beside it."""

    body_bytes: int = 16 * 2**20  # memory, before anything is parsed
    messages: int = 4096  # time in the chat template
    prompts: int = 128  # fan-out of one body: prompts times n
    n: int = 64
    stop_strings: int = 4  # time per token; OpenAI's number
    stop_string_chars: int = 512  # text held back while it could still become a stop string
    stop_token_ids: int = 128
    logprobs: int = 20  # size of an answer; vLLM's number
    logit_bias: int = 1024  # time per token
    allowed_token_ids: int = 4096  # time per token
    bad_words: int = 128  # time per token; vLLM's number
    bad_word_chars: int = 128
    validation_errors: int = 10  # size of an answer: a small body can hold thousands of mistakes
    error_chars: int = 1000
    template_seconds: float = 10.0  # a template is the model's code, run on the client's text
    template_threads: int = 8
    encode_seconds: float = 30.0
    encode_threads: int = 2
    inline_chars: int = 4096  # shorter texts are encoded on the spot: it takes less than a thread's start
    step_seconds: float = 120.0  # longest step: beyond it the engine counts as stuck and /health says so
    retry_after_seconds: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """The table with PAGODA_STEP_SECONDS, the one that depends on the hardware, taken from the environment.

        Raises ValueError where it is not a positive number.
        """
        text = environment.get("PAGODA_STEP_SECONDS")
        if text is None:
            return cls()
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not seconds > 0:
            raise ValueError(f"PAGODA_STEP_SECONDS is {text!r}; it must be a number of seconds above 0")
        return cls(step_seconds=seconds)
