"""The bytes of single tokens put together are the bytes of the text, whatever kind of vocabulary it is."""

import pytest
from tokenizers import Tokenizer, decoders, models

from pagoda_engine.server.bad_words import bad_token_ids
from pagoda_engine.server.token_text import TokenText, readable

TEXTS = ["The quick brown fox", "Größe 你好 🙂🚀👩‍👩‍👧", "  two  spaces\n\ttab", "naïve � façade"]


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_tokens_have_the_bytes_that_their_letters_stand_for(tokenizer, text):
    tokens = TokenText(tokenizer)
    ids = tokenizer.encode(text).ids
    assert b"".join(map(tokens.bytes_of, ids)) == text.encode()
    assert any(len(tokenizer.encode(one).ids) > 1 for one in "好🙂"), "some characters must be several tokens"


def test_a_special_token_is_its_name(tokenizer):
    assert TokenText(tokenizer).bytes_of(tokenizer.token_to_id("<|end|>")) == b"<|end|>"


def test_pieces_with_a_mark_for_spaces_keep_the_space_and_bytes_are_bytes():
    """Llama 2's kind: its decoder drops the space at the beginning of a text, and joins bytes to characters."""
    pieces = ["<unk>", "a", "▁hello", "lo", "▁", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=[], unk_token="<unk>")
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokens = TokenText(tokenizer)
    ids = [2, 3, 4, *(5 + byte for byte in "é🙂".encode())]
    assert tokenizer.decode(ids[:2]) == "hellolo"
    assert b"".join(map(tokens.bytes_of, ids)) == " hellolo é🙂".encode()


def test_bytes_that_are_no_text_are_named_as_openai_names_them():
    assert readable("é".encode()) == "é"
    assert readable(b"\xe2\x82") == "bytes:\\xe2\\x82"


def test_a_bad_word_is_bad_at_the_beginning_and_after_a_space(tokenizer):
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    found = bad_token_ids([" fox", "fox"], encode)
    assert set(found) == {tuple(encode("fox")), tuple(encode(" fox"))}
    assert len(found) == 2, "each form once"
