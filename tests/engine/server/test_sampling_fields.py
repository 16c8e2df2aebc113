"""The fields that shape sampling do over HTTP, through the real openai SDK, what OpenAI and vLLM document."""

import openai
import pytest
import torch

PROMPT = "The quick brown fox"
MESSAGES = [{"role": "user", "content": "hello 🙂"}]
GREEDY = {"model": "tiny", "temperature": 0}
IDS = {"ignore_eos": True, "return_token_ids": True}


def complete(client, *, extra=None, **options):
    return client.completions.create(**{"prompt": PROMPT, **GREEDY, **options}, extra_body={**IDS, **(extra or {})})


def ids_of(answer, index=0) -> list[int]:
    return answer.choices[index].model_extra["token_ids"]


@pytest.fixture(scope="module")
def reference(tiny_model):
    """Log-probabilities of each token of a text but the first, by transformers' own model in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()

    def score(tokens) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([tokens])).logits[0, :-1].log_softmax(dim=-1)

    return score


def test_a_chats_logprobs_tell_of_every_token_its_bytes_and_the_likeliest_ones(client):
    options = {"messages": MESSAGES, "max_tokens": 30, "logprobs": True, "top_logprobs": 3, **GREEDY}
    answer = client.chat.completions.create(**options, extra_body=IDS)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens == 30
    assert b"".join(bytes(one.bytes) for one in content).decode(errors="replace") == answer.choices[0].message.content
    for one in content:
        assert len(one.top_logprobs) == 3
        assert one.logprob == one.top_logprobs[0].logprob == max(top.logprob for top in one.top_logprobs) <= 0
        assert one.bytes == one.top_logprobs[0].bytes
        assert one.token == one.top_logprobs[0].token
        assert one.token.encode() == bytes(one.bytes) or one.token.startswith("bytes:\\x")


def test_streamed_logprobs_are_the_same_in_pieces(client):
    options = {"messages": MESSAGES, "max_tokens": 30, "logprobs": True, "top_logprobs": 2, "model": "tiny", "seed": 1}
    for n in (1, 3):
        whole = client.chat.completions.create(**options, n=n)
        pieces = {index: [] for index in range(n)}
        for chunk in client.chat.completions.create(**options, n=n, stream=True):
            choice = chunk.choices[0]
            pieces[choice.index] += choice.logprobs.content if choice.logprobs else []
        assert pieces == {choice.index: choice.logprobs.content for choice in whole.choices}


def test_logprobs_stop_where_the_text_stops(client):
    """The token in which a stop string ends is counted and reported; what the engine made after it is not."""
    text = complete(client, max_tokens=40).choices[0].text
    stopped = complete(client, max_tokens=40, stop=text[15:18], logprobs=1)
    assert len(stopped.choices[0].logprobs.tokens) == stopped.usage.completion_tokens < 40


def test_a_token_that_ends_an_answer_is_reported_like_any_other(client):
    plain = complete(client, max_tokens=8, logprobs=0)
    last = ids_of(plain)[7]
    first = ids_of(plain).index(last)
    stopped = complete(client, max_tokens=40, logprobs=0, extra={"stop_token_ids": [last]})
    assert stopped.usage.completion_tokens == first + 1
    assert stopped.choices[0].logprobs.token_logprobs == plain.choices[0].logprobs.token_logprobs[: first + 1]


def test_a_completions_logprobs_are_those_of_transformers(client, tokenizer, reference):
    answer = complete(client, max_tokens=12, logprobs=4)
    found = answer.choices[0].logprobs
    prompt = tokenizer.encode(PROMPT).ids
    scores = reference(prompt + ids_of(answer))[len(prompt) - 1 :]
    expected = [row[token].item() for row, token in zip(scores, ids_of(answer), strict=True)]
    assert found.token_logprobs == pytest.approx(expected, abs=1e-3)
    for row, top, token in zip(scores, found.top_logprobs, found.tokens, strict=True):
        assert max(top.values()) == top[token] == pytest.approx(row.max().item(), abs=1e-3)
        assert sorted(top.values())[-4:] == pytest.approx(sorted(row.topk(4).values.tolist()), abs=1e-3)
    text = answer.choices[0].text
    for token, start in zip(found.tokens, found.text_offset, strict=True):
        assert token.startswith("bytes:") or text[start:].startswith(token)


@pytest.mark.parametrize("stream", [False, True])
def test_echo_with_logprobs_scores_the_prompt_too(client, tokenizer, reference, stream):
    prompt = tokenizer.encode(PROMPT).ids
    answer = complete(client, max_tokens=5, logprobs=1, echo=True, stream=stream)
    parts = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
    tokens = [token for part in parts if part.logprobs for token in part.logprobs.tokens]
    logprobs = [one for part in parts if part.logprobs for one in part.logprobs.token_logprobs]
    offsets = [one for part in parts if part.logprobs for one in part.logprobs.text_offset]
    text = "".join(part.text for part in parts)
    made = [one for part in parts for one in part.model_extra["token_ids"]]
    assert text.startswith(PROMPT)
    assert len(tokens) == len(prompt) + 5
    assert "".join(tokens[: len(prompt)]) == PROMPT
    for token, start in zip(tokens, offsets, strict=True):
        assert token.startswith("bytes:") or text[start:].startswith(token)
    assert logprobs[0] is None
    scores = reference(prompt + made)
    expected = [row[token].item() for row, token in zip(scores, (prompt + made)[1:], strict=True)]
    assert logprobs[1:] == pytest.approx(expected, abs=1e-3)


def test_prompt_logprobs_come_as_vllm_shapes_them(client, server, tokenizer, reference):
    chat = client.chat.completions.create(messages=MESSAGES, max_tokens=1, **GREEDY, extra_body={"prompt_logprobs": 1})
    found = chat.model_extra["prompt_logprobs"]
    prompt = tokenizer.encode("<|user|>hello 🙂<|end|>\n<|assistant|>").ids
    assert found[0] is None
    for token, row, table in zip(prompt[1:], reference(prompt), found[1:], strict=True):
        own = table[str(token)]
        assert own["logprob"] == pytest.approx(row[token].item(), abs=1e-3)
        assert own["rank"] == 1 + int((row > row[token] + 1e-6).sum())
        assert min(one["rank"] for one in table.values()) == 1
    text = complete(client, max_tokens=1, extra={"prompt_logprobs": 0}, n=2)
    assert [len(choice.model_extra["prompt_logprobs"]) for choice in text.choices] == [
        len(tokenizer.encode(PROMPT).ids)
    ] * 2
    assert "prompt_logprobs" not in complete(client, max_tokens=1).choices[0].model_extra
    server.quiet()


def test_a_bias_makes_a_token_certain_or_impossible(client, tokenizer):
    wanted = tokenizer.encode("z").ids[0]
    assert ids_of(complete(client, max_tokens=4, logit_bias={str(wanted): 100})) == [wanted] * 4
    first = ids_of(complete(client, max_tokens=1))[0]
    assert ids_of(complete(client, max_tokens=1, logit_bias={str(first): -100}))[0] != first
    chat = {"messages": MESSAGES, "max_tokens": 2, "logit_bias": {str(wanted): 100}}
    assert client.chat.completions.create(**chat, **GREEDY).choices[0].message.content == "zz"


def test_only_allowed_tokens_come(client):
    allowed = list(range(40, 60))
    answer = complete(client, max_tokens=30, temperature=2, seed=1, extra={"allowed_token_ids": allowed})
    assert set(ids_of(answer)) <= set(allowed)


def test_bad_words_are_not_written(client):
    text = complete(client, max_tokens=40).choices[0].text
    word = next(one for one in text.split() if one.isascii() and len(one) > 1)
    assert word not in complete(client, max_tokens=40, extra={"bad_words": [word]}).choices[0].text


def test_a_strong_repetition_penalty_repeats_neither_prompt_nor_output(client, tokenizer):
    made = ids_of(complete(client, max_tokens=40, extra={"repetition_penalty": 1e6}))
    assert len({*made}) == 40
    assert not {*made} & {*tokenizer.encode(PROMPT).ids}
    assert len({*ids_of(complete(client, max_tokens=40))}) < 40, "the model would repeat itself otherwise"


def test_presence_and_frequency_penalties_are_subtracted_from_what_was_written(client, tokenizer, reference):
    """Step by step the same as with the model's own log-probabilities and the penalties taken from them by hand."""
    made = ids_of(complete(client, max_tokens=100, presence_penalty=2, frequency_penalty=1.5))
    prompt = tokenizer.encode(PROMPT).ids
    scores = reference(prompt + made)[len(prompt) - 1 :]
    for at, (row, token) in enumerate(zip(scores.clone(), made, strict=True)):
        for one in set(made[:at]):
            row[one] -= 2 + 1.5 * made[:at].count(one)
        assert row[token] == pytest.approx(row.max().item(), abs=1e-3)
    assert made != ids_of(complete(client, max_tokens=100))


def test_what_is_asked_of_sampling_changes_no_usage(client):
    options = {"max_tokens": 6, "echo": True}
    plain = complete(client, **options).usage
    assert complete(client, **options, logprobs=5, presence_penalty=1).usage == plain


STRANGE = {
    "too many top_logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs", "logprobs is not set"),
    "logprobs as a number": ({"logprobs": 3}, "logprobs", "boolean"),
    "bias out of range": ({"logit_bias": {"5": 101}}, "logit_bias", "100"),
    "bias of no token": ({"logit_bias": {"five": 1}}, "logit_bias", "integer"),
    "bias out of the vocabulary": ({"logit_bias": {"400": 1}}, "logit_bias", "400"),
    "bias on too many": ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias", "1024"),
    "penalty out of range": ({"presence_penalty": 2.5}, "presence_penalty", "2"),
    "penalty as a string": ({"frequency_penalty": "1"}, "frequency_penalty", "number"),
}
STRANGE_EXTRAS = {
    "no repetition penalty": ({"repetition_penalty": 0}, "repetition_penalty", "0"),
    "nothing allowed": ({"allowed_token_ids": []}, "allowed_token_ids", "empty"),
    "allowed out of the vocabulary": ({"allowed_token_ids": [1, 5000]}, "allowed_token_ids", "5000"),
    "empty bad word": ({"bad_words": ["a", ""]}, "bad_words", "empty"),
    "too many bad words": ({"bad_words": ["a"] * 129}, "bad_words", "128"),
    "endless bad word": ({"bad_words": ["a" * 129]}, "bad_words", "128"),
    "too many prompt logprobs": ({"prompt_logprobs": 21}, "prompt_logprobs", "20"),
    "negative prompt logprobs": ({"prompt_logprobs": -1}, "prompt_logprobs", "0"),
    "streamed prompt logprobs": ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "stream"),
}


@pytest.mark.parametrize(("fields", "param", "words"), STRANGE.values(), ids=STRANGE.keys())
def test_a_strange_value_is_named(client, fields, param, words):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(messages=MESSAGES, max_tokens=1, **GREEDY, extra_body=fields)
    assert error.value.param == param
    assert words in error.value.message


@pytest.mark.parametrize(("fields", "param", "words"), STRANGE_EXTRAS.values(), ids=STRANGE_EXTRAS.keys())
def test_a_strange_value_of_vllms_fields_is_named(client, fields, param, words):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(prompt="a", max_tokens=1, **GREEDY, extra_body=fields)
    assert error.value.param == param
    assert words in error.value.message
