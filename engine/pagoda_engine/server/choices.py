"""From the engine's tokens to the text of each choice, with stop strings, in pieces that may be shown at once.

Streaming and not streaming are the same pieces, sent or joined, so that they can't differ.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.process.client import EngineClient, Generation, Prompt
from pagoda_engine.process.streams import Update
from pagoda_engine.server.errors import generation_failed
from pagoda_engine.server.logprobs import Reporter, TokenReport
from pagoda_engine.server.stop_strings import StopStrings
from pagoda_engine.server.text_model import TextModel


@dataclass(frozen=True, slots=True)
class Piece:
    """The next text of one choice; its last has a finish_reason. `stop_reason` is the stop string or token id.

    `tokens` counts what the choice has generated so far, the token that ended it included; `token_ids` are those since
    the piece before, and `reports` their log-probabilities where they were asked for. `prompt_reports`, of all of the
    prompt, come with the first piece.
    """

    index: int
    text: str
    tokens: int
    token_ids: tuple[int, ...] = ()
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    reports: tuple[TokenReport, ...] = ()
    prompt_reports: tuple[TokenReport, ...] = ()


def join(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one choice, in their order, as one."""
    return replace(
        pieces[-1],
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        reports=tuple(report for piece in pieces for report in piece.reports),
        prompt_reports=tuple(report for piece in pieces for report in piece.prompt_reports),
    )


class _Choice:
    """One sequence's text so far."""

    def __init__(self, index: int, prompt: Prompt, model: TextModel, lead: str) -> None:
        """`lead` is text that stands before the first piece's own."""
        params = prompt.params
        self._index = index
        self._prompt = prompt
        self._params = params
        self._lead = lead
        self._detokenizer = model.detokenizer(prompt.token_ids, params)
        self._stops = StopStrings(params.stop, include=params.include_stop_str_in_output)
        self._token_text = model.token_text
        self._reporter = Reporter(model.token_text)
        self._tokens = 0
        self._untold: list[int] = []
        self._reports: list[TokenReport] = []
        self._prompt_reports: tuple[TokenReport, ...] = ()

    def advance(self, update: Update) -> Piece:
        """Take what the engine made. A piece that ends without the engine having said so was ended by a stop string."""
        if self._params.prompt_logprobs is not None and not self._tokens:
            self._report_prompt(update.prompt_logprobs)
        logprobs = iter(update.logprobs)
        shown = ""
        for token_id in update.token_ids:
            self._count(token_id, next(logprobs, None))
            text, stop = self._show(self._detokenizer.push(token_id))
            shown += text
            if stop is not None:
                return self._piece(shown, "stop", stop)
        if update.finish_reason is None:
            return self._piece(shown)
        return self._end(update, shown, next(logprobs, None))

    def _end(self, update: Update, shown: str, logprobs: Logprobs | None) -> Piece:
        rest = ""
        if update.stop_token_id is not None:
            self._count(update.stop_token_id, logprobs)
            if self._params.include_stop_str_in_output:
                rest = self._detokenizer.push(update.stop_token_id)
        text, stop = self._show(rest + self._detokenizer.flush())
        shown += text
        if stop is not None:
            return self._piece(shown, "stop", stop)
        shown += self._stops.flush()
        reason = _REASONS.get(update.finish_reason or "", update.finish_reason)
        return self._piece(shown, reason, update.stop_token_id)

    def _count(self, token_id: int, logprobs: Logprobs | None) -> None:
        self._tokens += 1
        self._untold.append(token_id)
        if logprobs is not None:
            self._reports.append(self._reporter.report(token_id, logprobs))

    def _report_prompt(self, logprobs: Sequence[Logprobs]) -> None:
        """Where the prompt leads the text, its tokens' offsets come before the output's."""
        reporter = self._reporter if self._lead else Reporter(self._token_text)
        known = [None, *logprobs]
        self._prompt_reports = tuple(map(reporter.report, self._prompt.token_ids, known))

    def _piece(self, text: str, finish_reason: str | None = None, stop_reason: str | int | None = None) -> Piece:
        """Tokens that show no text yet (half a character, say) are told of with the next text."""
        if not text and finish_reason is None:
            return Piece(self._index, "", self._tokens)
        piece = Piece(
            self._index,
            self._lead + text,
            self._tokens,
            tuple(self._untold),
            finish_reason,
            stop_reason,
            tuple(self._reports),
            self._prompt_reports,
        )
        self._lead, self._untold, self._reports, self._prompt_reports = "", [], [], ()
        return piece

    def _show(self, text: str) -> tuple[str, str | None]:
        """Stop strings count from the token after `min_tokens` on."""
        if self._tokens <= self._params.min_tokens:
            return text, None
        return self._stops.push(text)


_REASONS = {"abort": "stop"}


async def pieces(
    client: EngineClient, model: TextModel, prompts: Sequence[Prompt], leads: Sequence[str] = ()
) -> AsyncGenerator[Piece, None]:
    """Every choice's pieces as they come, until all have ended; `leads` are the texts that they begin with.

    Closing the iterator, or cancelling whoever reads it, aborts what is still running. Raises EngineGone before the
    first piece, ApiError 500 where the engine failed one of the choices.
    """
    begins = leads or [""] * len(prompts)
    with client.generate(prompts) as generation:
        choices = {index: _Choice(index, prompt, model, begins[index]) for index, prompt in enumerate(prompts)}
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
