"""Turns token ids into text as they come, never showing half a character.

A token's text depends on its neighbours (byte-level pieces of one character, a leading space that is dropped at the
start), so each piece is decoded within a short window of tokens before it; the cost of a token does not grow with the
output. The window starts with the end of the prompt, as in vLLM's incremental detokeniser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers import Tokenizer

_REPLACEMENT: Final = "\ufffd"
_PROMPT_TOKENS: Final = 6
"""Enough context for a leading space, and for a character of which the prompt holds the first bytes."""
_MAX_PENDING: Final = 16
"""Tokens that may wait for their character to become whole; bytes that never will are shown as U+FFFD."""


class Detokenizer:
    """One output's text. `push` each token id in order, then `flush`."""

    def __init__(
        self, tokenizer: Tokenizer, special_ids: frozenset[int], prompt: Sequence[int], *, skip_special: bool
    ) -> None:
        """`special_ids` leave no text where `skip_special` is set."""
        self._tokenizer = tokenizer
        self._skipped = special_ids if skip_special else frozenset()
        self._window = self._context([token for token in prompt[-2 * _PROMPT_TOKENS :] if token not in self._skipped])
        self._shown = len(_whole(self._decode(self._window)))
        self._pending = 0

    def push(self, token_id: int) -> str:
        """The text that became certain with this token, often all of its own."""
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        self._pending += 1
        text = self._decode(self._window)
        if self._pending >= _MAX_PENDING:
            return self._show(text, text)
        return self._show(text, _whole(text))

    def flush(self) -> str:
        """What is left of a character that never became whole, as U+FFFD."""
        text = self._decode(self._window)
        return self._show(text, text)

    def _show(self, text: str, certain: str) -> str:
        piece = certain[self._shown :]
        if not piece:
            return ""
        if len(certain) == len(text):
            # Everything is shown: the tokens of this piece are context enough for the next.
            self._window = self._window[-self._pending :]
            self._pending = 0
            self._shown = len(self._decode(self._window))
        else:
            self._shown = len(certain)
        return piece

    def _context(self, prompt: list[int]) -> list[int]:
        """The shortest end of a prompt, of `_PROMPT_TOKENS` or more, that does not begin inside a character.

        Nothing where there is none, or where several bytes at its end are still without their character: the text of
        such bytes changes as a whole, so it can't be told from the output's.
        """
        for length in range(min(_PROMPT_TOKENS, len(prompt)), len(prompt) + 1):
            window = prompt[len(prompt) - length :]
            text = self._decode(window)
            inside = text.startswith(_REPLACEMENT) and length < len(prompt)
            if not inside and len(text) - len(_whole(text)) <= 1:
                return window
        return []

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        return text


def _whole(text: str) -> str:
    """`text` without the U+FFFD at its end: bytes of a character that the next token may complete."""
    return text.rstrip(_REPLACEMENT)
