"""The text and the bytes of single tokens, of which several may make one character."""

from __future__ import annotations

import re
from typing import Final

from tokenizers import Tokenizer

_REPLACEMENT: Final = "\ufffd"
_BYTE_PIECE: Final = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    GPT-2's mapping (https://github.com/openai/gpt-2, src/encoder.py): printable bytes stand for themselves, all others,
    in order, for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTES: Final = _byte_alphabet()


class TokenText:
    """A tokenizer, asked about one token at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Decoders drop a space at the beginning of a text. What stands before a token shows it.
        self._before = tokenizer.encode("a", add_special_tokens=False).ids
        self._before_text = self._decode(self._before)
        self._known: dict[int, bytes] = {}

    def bytes_of(self, token_id: int) -> bytes:
        """What a token adds to the bytes of a text; the bytes of all tokens are those of the text."""
        if token_id not in self._known:
            self._known[token_id] = self._find(token_id)
        return self._known[token_id]

    def _find(self, token_id: int) -> bytes:
        text = self._decode([*self._before, token_id])
        if text.startswith(self._before_text) and _REPLACEMENT not in text:
            return text[len(self._before_text) :].encode()
        return self._piece_bytes(self._tokenizer.id_to_token(token_id) or "")

    def _piece_bytes(self, piece: str) -> bytes:
        """The bytes of a token that is no text by itself, from its name in the vocabulary."""
        if match := _BYTE_PIECE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        if all(character in _BYTES for character in piece):
            return bytes(_BYTES[character] for character in piece)
        return piece.encode()

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        return text


def readable(raw: bytes) -> str:
    """Bytes as text; where they are none, as OpenAI's API names them: `bytes:\\xe2\\x82`."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
