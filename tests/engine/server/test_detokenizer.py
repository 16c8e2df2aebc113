"""Text comes out of tokens piece by piece, whole characters only, and the pieces are what decoding at once gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from pagoda_engine.server.detokenizer import Detokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40)


def byte_fallback_tokenizer() -> Tokenizer:
    """As Llama 2's: words with a leading mark for a space, and one token for each byte of what is no word."""
    words = ["▁", "▁hello", "▁world", "a", "b", "c", "▁a"]
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    vocabulary |= {word: 257 + index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@pytest.fixture(scope="module", params=["byte level", "byte fallback"])
def any_tokenizer(request, tokenizer) -> Tokenizer:
    return tokenizer if request.param == "byte level" else byte_fallback_tokenizer()


def detokenize(tokenizer, ids, prompt=(), special=frozenset(), skip_special=True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, special, list(prompt), skip_special=skip_special)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@given(text=TEXTS)
def test_the_pieces_together_are_the_text(any_tokenizer, text):
    ids = any_tokenizer.encode(text).ids
    assert "".join(detokenize(any_tokenizer, ids)) == any_tokenizer.decode(ids)


@given(text=TEXTS)
def test_no_piece_holds_half_a_character(any_tokenizer, text):
    assert not any("\ufffd" in piece for piece in detokenize(any_tokenizer, any_tokenizer.encode(text).ids))


@given(prompt=TEXTS, text=TEXTS)
def test_an_output_continues_its_prompt(any_tokenizer, prompt, text):
    """Cut anywhere between two tokens, the output's text is what the whole has more than the prompt."""
    ids = any_tokenizer.encode(prompt + text).ids
    for cut in range(1, len(ids)):
        before = any_tokenizer.decode(ids[:cut])
        if before.endswith("\ufffd"):
            continue  # inside of a character: covered below
        output = "".join(detokenize(any_tokenizer, ids[cut:], prompt=ids[:cut]))
        assert before + output == any_tokenizer.decode(ids)


def test_a_character_that_the_prompt_began_is_shown_whole(tokenizer):
    ids = tokenizer.encode("🙂").ids
    assert len(ids) > 1
    assert "".join(detokenize(tokenizer, ids[1:], prompt=ids[:1])) == "🙂"


@settings(max_examples=200)
@given(ids=st.lists(st.integers(0, 262), max_size=60))
def test_arbitrary_tokens_lose_no_text(tokenizer, ids):
    """Bytes that are no characters become U+FFFD; what is text stays text."""
    text = "".join(detokenize(tokenizer, ids))
    whole = tokenizer.decode(ids, skip_special_tokens=False)
    assert text.replace("\ufffd", "") == whole.replace("\ufffd", "")


def test_special_tokens_leave_no_text_unless_asked_for(tokenizer):
    end = tokenizer.token_to_id("<|end|>")
    ids = [*tokenizer.encode("so").ids, end, *tokenizer.encode("be").ids]
    special = frozenset({end})
    assert "".join(detokenize(tokenizer, ids, special=special)) == "sobe"
    assert "".join(detokenize(tokenizer, ids, special=special, skip_special=False)) == "so<|end|>be"


class CountingTokenizer:
    """A real tokenizer that counts how many ids it was asked to decode."""

    def __init__(self, tokenizer):
        self.tokenizer, self.decoded = tokenizer, 0

    def decode(self, ids, skip_special_tokens):
        self.decoded += len(ids)
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


@pytest.mark.parametrize("kind", ["text", "broken bytes"])
def test_the_cost_of_a_token_does_not_grow_with_the_output(tokenizer, kind):
    """Also for a model that has lost its way in bytes which never become a character."""
    byte = tokenizer.encode("🙂").ids[0]
    ids = tokenizer.encode("The quick brown fox. " * 100).ids if kind == "text" else [byte] * 1000
    counting = CountingTokenizer(tokenizer)
    detokenize(counting, ids)
    assert counting.decoded <= 40 * len(ids)
