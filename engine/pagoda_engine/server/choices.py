"""From the engine's tokens to the text of each choice, with stop strings, in pieces that may be shown at once.

Streaming and not streaming are the same pieces, sent or joined, so that they can't differ.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from pagoda_engine.process.client import EngineClient, Generation, Prompt
from pagoda_engine.process.streams import Update
from pagoda_engine.server.errors import generation_failed
from pagoda_engine.server.stop_strings import StopStrings
from pagoda_engine.server.text_model import TextModel


@dataclass(frozen=True, slots=True)
class Piece:
    """The next text of one choice; its last has a finish_reason. `stop_reason` is the stop string or token id.

    `tokens` counts what the choice has generated so far, the token that ended it included; `token_ids` are those since
    the piece before.
    """

    index: int
    text: str
    tokens: int
    token_ids: tuple[int, ...] = ()
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _Choice:
    """One sequence's text so far."""

    def __init__(self, index: int, prompt: Prompt, model: TextModel) -> None:
        params = prompt.params
        self._index = index
        self._params = params
        self._detokenizer = model.detokenizer(prompt.token_ids, params)
        self._stops = StopStrings(params.stop, include=params.include_stop_str_in_output)
        self._tokens = 0
        self._untold: list[int] = []

    def advance(self, update: Update) -> Piece:
        """Take what the engine made. A piece that ends without the engine having said so was ended by a stop string."""
        shown = ""
        for token_id in update.token_ids:
            self._count(token_id)
            text, stop = self._show(self._detokenizer.push(token_id))
            shown += text
            if stop is not None:
                return self._piece(shown, "stop", stop)
        if update.finish_reason is None:
            return self._piece(shown)
        return self._end(update, shown)

    def _end(self, update: Update, shown: str) -> Piece:
        rest = ""
        if update.stop_token_id is not None:
            self._count(update.stop_token_id)
            if self._params.include_stop_str_in_output:
                rest = self._detokenizer.push(update.stop_token_id)
        text, stop = self._show(rest + self._detokenizer.flush())
        shown += text
        if stop is not None:
            return self._piece(shown, "stop", stop)
        shown += self._stops.flush()
        reason = _REASONS.get(update.finish_reason or "", update.finish_reason)
        return self._piece(shown, reason, update.stop_token_id)

    def _count(self, token_id: int) -> None:
        self._tokens += 1
        self._untold.append(token_id)

    def _piece(self, text: str, finish_reason: str | None = None, stop_reason: str | int | None = None) -> Piece:
        """Tokens that show no text yet (half a character, say) are told of with the next text."""
        told: tuple[int, ...] = ()
        if text or finish_reason is not None:
            told, self._untold = tuple(self._untold), []
        return Piece(self._index, text, self._tokens, told, finish_reason, stop_reason)

    def _show(self, text: str) -> tuple[str, str | None]:
        """Stop strings count from the token after `min_tokens` on."""
        if self._tokens <= self._params.min_tokens:
            return text, None
        return self._stops.push(text)


_REASONS = {"abort": "stop"}


async def pieces(client: EngineClient, model: TextModel, prompts: Sequence[Prompt]) -> AsyncGenerator[Piece, None]:
    """Every choice's pieces as they come, until all have ended.

    Closing the iterator, or cancelling whoever reads it, aborts what is still running. Raises EngineGone before the
    first piece, ApiError 500 where the engine failed one of the choices.
    """
    with client.generate(prompts) as generation:
        choices = {index: _Choice(index, prompt, model) for index, prompt in enumerate(prompts)}
        while choices:
            for piece in await _next(generation, choices):
                if piece.finish_reason is not None:
                    del choices[piece.index]
                yield piece


async def _next(generation: Generation, choices: dict[int, _Choice]) -> list[Piece]:
    ready: list[Piece] = []
    for index, update in (await generation.take()).items():
        if index not in choices:
            continue  # its stop string was found while the engine made more
        if update.error is not None:
            raise generation_failed(update.error)
        piece = choices[index].advance(update)
        if piece.finish_reason is not None and update.finish_reason is None:
            generation.stop(index)
        if piece.text or piece.finish_reason is not None:
            ready.append(piece)
    return ready
