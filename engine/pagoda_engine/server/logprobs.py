"""Log-probabilities in the three shapes that clients know: OpenAI's of chats, of completions, and vLLM's of prompts."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.server.token_text import TokenText, readable

_CONTINUING: Final = frozenset(bytes([byte]) for byte in range(0x80, 0xC0))
"""Bytes that go on with a character of UTF-8."""
_LOWEST: Final = -9999.0
"""What OpenAI says where a token is impossible: JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class TokenReport:
    """One token as documents show it. `logprob` is None for a text's first, which nothing predicts.

    `offset` counts the characters of its choice's text before it; `likeliest` holds bytes and log-probabilities.
    """

    token_id: int
    raw: bytes
    offset: int
    logprob: float | None
    rank: int
    likeliest: tuple[tuple[int, bytes, float], ...]


class Reporter:
    """Makes the reports of one choice, whose tokens it must see in their order: offsets go on from one to the next."""

    def __init__(self, tokens: TokenText) -> None:
        self._tokens = tokens
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def report(self, token_id: int, logprobs: Logprobs | None) -> TokenReport:
        raw = self._tokens.bytes_of(token_id)
        if raw[:1] not in _CONTINUING:  # what stands open now will never be a character
            self._offset += len(self._characters.decode(b"", final=True))
        offset = self._offset
        self._offset += len(self._characters.decode(raw))
        if logprobs is None:
            return TokenReport(token_id, raw, offset, None, 0, ())
        likeliest = tuple(
            (one, self._tokens.bytes_of(one), max(value, _LOWEST))
            for one, value in zip(logprobs.top_ids, logprobs.top_logprobs, strict=True)
        )
        return TokenReport(token_id, raw, offset, max(logprobs.logprob, _LOWEST), logprobs.rank, likeliest)


def chat_logprobs(reports: Sequence[TokenReport]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat: https://platform.openai.com/docs/api-reference/chat/object."""
    return {"content": [_chat_token(report) for report in reports], "refusal": None}


def text_logprobs(reports: Sequence[TokenReport]) -> dict[str, Any]:
    """`choices[].logprobs` of a completion; `top_logprobs` holds the chosen token beside the likeliest ones."""
    return {
        "tokens": [readable(report.raw) for report in reports],
        "token_logprobs": [report.logprob for report in reports],
        "top_logprobs": [_by_text(report) for report in reports],
        "text_offset": [report.offset for report in reports],
    }


def prompt_logprobs(reports: Sequence[TokenReport]) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each prompt token a table by token id; None for the first."""
    return [_by_id(report) for report in reports]


def _chat_token(report: TokenReport) -> dict[str, Any]:
    return {
        **_shown(report.raw, report.logprob),
        "top_logprobs": [_shown(raw, logprob) for _, raw, logprob in report.likeliest],
    }


def _shown(raw: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": readable(raw), "logprob": logprob, "bytes": list(raw)}


def _by_text(report: TokenReport) -> dict[str, float] | None:
    """Of tokens with the same text the likeliest is shown, or the one that was chosen."""
    if report.logprob is None:
        return None
    table: dict[str, float] = {}
    for _, raw, logprob in report.likeliest:
        table.setdefault(readable(raw), logprob)
    table[readable(report.raw)] = report.logprob
    return table


def _by_id(report: TokenReport) -> dict[str, Any] | None:
    if report.logprob is None:
        return None
    ranked = [(one, raw, logprob, rank) for rank, (one, raw, logprob) in enumerate(report.likeliest, 1)]
    own = (report.token_id, report.raw, report.logprob, report.rank)
    return {
        str(one): {"logprob": logprob, "rank": rank, "decoded_token": readable(raw)}
        for one, raw, logprob, rank in (*ranked, own)
    }
