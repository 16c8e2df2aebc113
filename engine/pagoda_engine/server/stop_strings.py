"""Finds stop strings in text that arrives in pieces, holding back only what could still become one.

The result does not depend on how the text was cut: the match that ends first wins, as if characters came one by one,
and of those that end together the longest.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """One output's matcher. `push` pieces until one returns a match, or `flush` at the end."""

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """`include` leaves the stop string itself in the output. Empty strings are no stop strings."""
        self._stops = tuple(filter(None, stops))
        self._include = include
        self._held = ""

    def push(self, piece: str) -> tuple[str, str | None]:
        """The text that may be shown now, and the stop string that ended the output, if one did."""
        if not self._stops:
            return piece, None
        text = self._held + piece
        matches = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:
            end, start, stop = min(matches)
            self._held = ""
            return text[: end if self._include else start], stop
        held = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], None

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`, shorter than `stop`. O(len(stop)^2), bounded."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
