"""An answer, whole or in events, from the pieces of its choices: what chat and completions have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pagoda_engine.process.client import Prompt
from pagoda_engine.server.choices import Piece, join, pieces
from pagoda_engine.server.connection import event
from pagoda_engine.server.logprobs import prompt_logprobs
from pagoda_engine.server.protocol import GenerationBody
from pagoda_engine.server.responses import Envelope, usage
from pagoda_engine.server.state import Serving


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request is to be answered. `prompt_tokens` counts each prompt once, however many choices it has."""

    serving: Serving
    envelope: Envelope
    prompts: Sequence[Prompt]
    prompt_tokens: int
    leads: Sequence[str] = ()
    """Text that stands before each choice's own (`echo`), by choice."""
    with_token_ids: bool = False
    """Whether each choice holds its generated `token_ids` too, the one that ended it included (vLLM's field)."""
    with_prompt_logprobs: bool = False
    """Whether the whole answer holds those of its one prompt (vLLM's field of chats)."""

    async def whole(self, choice: Callable[[Piece], dict[str, Any]]) -> dict[str, Any]:
        """The answer as one document, once all of it is there."""
        parts: dict[int, list[Piece]] = {index: [] for index in range(len(self.prompts))}
        async with aclosing(self._pieces()) as stream:
            async for piece in stream:
                parts[piece.index].append(piece)
        answers = [join(part) for part in parts.values()]
        more: dict[str, Any] = {"usage": usage(self.prompt_tokens, sum(piece.tokens for piece in answers))}
        if self.with_prompt_logprobs:
            more["prompt_logprobs"] = prompt_logprobs(answers[0].prompt_reports)
        return self.envelope.document([choice(piece) | self._ids(piece.token_ids) for piece in answers], **more)

    async def events(
        self,
        body: GenerationBody,
        choice: Callable[[Piece], dict[str, Any]],
        opening: Sequence[dict[str, Any]] = (),
        suffix: str = "",
    ) -> AsyncGenerator[bytes, None]:
        """The answer as events: `opening` choices, then one for each piece, then the usage where it is asked for."""
        options = body.stream_options
        final = bool(options and options.include_usage)
        continuous = bool(options and options.continuous_usage_stats)
        tokens = dict.fromkeys(range(len(self.prompts)), 0)

        def chunk(choices: list[dict[str, Any]], *, spent: bool) -> bytes:
            more: dict[str, Any] = {}
            if final or continuous:
                more["usage"] = usage(self.prompt_tokens, sum(tokens.values())) if spent else None
            return event(self.envelope.document(choices, suffix=suffix, **more))

        for first in opening:
            yield chunk([first], spent=continuous)
        async with aclosing(self._pieces()) as stream:
            async for piece in stream:
                tokens[piece.index] = piece.tokens
                yield chunk([choice(piece) | self._ids(piece.token_ids)], spent=continuous)
        if final:
            yield chunk([], spent=True)

    def _ids(self, token_ids: Sequence[int]) -> dict[str, Any]:
        return {"token_ids": list(token_ids)} if self.with_token_ids else {}

    def _pieces(self) -> AsyncGenerator[Piece, None]:
        return pieces(self.serving.client, self.serving.text_model, self.prompts, self.leads)
