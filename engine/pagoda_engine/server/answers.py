"""An answer, whole or in events, from the pieces of its choices: what chat and completions have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pagoda_engine.process.client import Prompt
from pagoda_engine.server.choices import Piece, pieces
from pagoda_engine.server.connection import event
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

    async def whole(self, choice: Callable[[int, str, Piece], dict[str, Any]]) -> dict[str, Any]:
        """The answer as one document, once all of it is there."""
        texts = list(self.leads) or [""] * len(self.prompts)
        lasts: dict[int, Piece] = {}
        token_ids: dict[int, list[int]] = {}
        async with aclosing(self._pieces()) as stream:
            async for piece in stream:
                texts[piece.index] += piece.text
                lasts[piece.index] = piece
                token_ids.setdefault(piece.index, []).extend(piece.token_ids)
        choices = [choice(index, texts[index], lasts[index]) | self._ids(token_ids[index]) for index in sorted(lasts)]
        spent = usage(self.prompt_tokens, sum(piece.tokens for piece in lasts.values()))
        return self.envelope.document(choices, usage=spent)

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
        return pieces(self.serving.client, self.serving.text_model, self.prompts)
