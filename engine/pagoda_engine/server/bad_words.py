"""Bad words as tokens, the form in which the engine can keep them from being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def bad_token_ids(words: Sequence[str], encode: Callable[[str], list[int]]) -> tuple[tuple[int, ...], ...]:
    """Each word as it is tokenised at the beginning of a text and after a space; the two are often different tokens.

    `encode` adds no special tokens. Other spellings of a word (case, a token boundary elsewhere) are other words, as in
    vLLM.
    """
    forms = (form for word in words for form in (word.lstrip(), " " + word.lstrip()))
    return tuple(dict.fromkeys(tuple(ids) for form in forms if (ids := encode(form))))
