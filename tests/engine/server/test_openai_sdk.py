"""The real openai SDK gets what it expects from the real server: answers, streams, and errors as its own classes."""

import openai
import pytest

GREEDY = {"model": "tiny", "temperature": 0}
MESSAGES = [{"role": "user", "content": "hello"}]


def test_a_chat_answers_with_usage_and_a_reason(client, server):
    answer = client.chat.completions.create(messages=MESSAGES, max_tokens=8, **GREEDY)
    choice = answer.choices[0]
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")


def test_the_prompt_of_a_chat_is_the_rendered_template(client, tokenizer):
    answer = client.chat.completions.create(messages=MESSAGES, max_tokens=1, **GREEDY)
    rendered = "<|user|>hello<|end|>\n<|assistant|>"
    assert answer.usage.prompt_tokens == len(tokenizer.encode(rendered).ids)


def test_text_parts_are_one_content(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    joined = [{"role": "user", "content": "hel\nlo"}]
    texts = [
        client.chat.completions.create(messages=messages, max_tokens=12, **GREEDY).choices[0].message.content
        for messages in (parts, joined)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_streamed_chat_is_the_same_text_in_pieces(client, field):
    options = {"messages": MESSAGES, field: 200, "seed": 7, "temperature": 1.0, "model": "tiny"}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_token_ids_come_when_they_are_asked_for_and_are_all_there(client, tokenizer):
    """Whole and streamed they are the same ids, as many as the usage says, and they decode to the text."""
    options = {"messages": MESSAGES, "max_tokens": 20, "seed": 3, "temperature": 1.0, "model": "tiny"}
    asked = {"extra_body": {"return_token_ids": True}}
    whole = client.chat.completions.create(**options, **asked)
    ids = whole.choices[0].model_extra["token_ids"]
    assert len(ids) == whole.usage.completion_tokens
    assert tokenizer.decode(ids) == whole.choices[0].message.content
    chunks = list(client.chat.completions.create(**options, **asked, stream=True))
    assert [i for chunk in chunks for i in chunk.choices[0].model_extra.get("token_ids", [])] == ids
    assert "token_ids" not in client.chat.completions.create(**options).choices[0].model_extra


def test_usage_comes_in_a_stream_only_when_it_is_asked_for(client):
    chunks = list(client.completions.create(prompt="hello", max_tokens=4, stream=True, **GREEDY))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_a_completion_continues_a_prompt_given_as_text_or_as_tokens(client, tokenizer):
    text = client.completions.create(prompt="The quick", max_tokens=12, **GREEDY)
    ids = client.completions.create(prompt=tokenizer.encode("The quick").ids, max_tokens=12, **GREEDY)
    assert text.choices[0].text == ids.choices[0].text
    assert text.usage == ids.usage


def test_prompts_in_a_list_are_answered_in_their_order(client):
    prompts = ["one", "two", "three"]
    alone = [client.completions.create(prompt=p, max_tokens=6, **GREEDY).choices[0].text for p in prompts]
    together = client.completions.create(prompt=prompts, max_tokens=6, **GREEDY)
    assert [choice.text for choice in together.choices] == alone
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert together.usage.completion_tokens == sum(6 for _ in prompts)


def test_n_choices_differ_and_are_the_same_again_with_the_same_seed(client):
    options = {"model": "tiny", "prompt": "hello", "max_tokens": 16, "temperature": 1.0, "seed": 3, "n": 3}
    first, second = (client.completions.create(**options) for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert len(set(texts)) == 3
    assert texts == [choice.text for choice in second.choices]


def test_streamed_choices_are_told_apart_by_their_index(client):
    options = {"model": "tiny", "messages": MESSAGES, "max_tokens": 10, "seed": 3, "n": 3}
    whole = client.chat.completions.create(**options)
    texts = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**options, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {choice.index: choice.message.content for choice in whole.choices}


def test_echo_puts_the_prompt_before_the_answer(client):
    options = {"prompt": "hello", "max_tokens": 5, **GREEDY}
    plain = client.completions.create(**options).choices[0].text
    assert client.completions.create(**options, echo=True).choices[0].text == "hello" + plain
    chunks = client.completions.create(**options, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "hello" + plain


LONG = {"prompt": "hello", "max_tokens": 60, "extra_body": {"ignore_eos": True}, **GREEDY}


def long_text(client) -> str:
    return client.completions.create(**LONG).choices[0].text


def test_a_stop_string_ends_the_text_before_itself(client):
    text = long_text(client)
    stop = text[20:24]
    cut = text[: text.index(stop)]
    answer = client.completions.create(**LONG, stop=[stop])
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (cut, "stop")
    assert answer.choices[0].model_extra["stop_reason"] == stop
    assert answer.usage.completion_tokens < 60
    streamed = client.completions.create(**LONG, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut


def test_a_stop_string_stays_when_it_is_asked_for(client):
    text = long_text(client)
    stop = text[20:24]
    extra = {"ignore_eos": True, "include_stop_str_in_output": True}
    answer = client.completions.create(**{**LONG, "extra_body": extra}, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop) + len(stop)]


def test_a_stop_token_ends_the_answer_and_leaves_no_text(client, tokenizer):
    """Every token of the vocabulary is a stop token in turn until one is the first to come."""
    first = client.completions.create(prompt="hello", max_tokens=1, extra_body={"ignore_eos": True}, **GREEDY)
    everything = list(range(tokenizer.get_vocab_size()))[-128:], list(range(128)), list(range(128, 256))
    endings = [
        client.completions.create(prompt="hello", max_tokens=4, extra_body={"stop_token_ids": ids}, **GREEDY).choices[0]
        for ids in (*everything, list(range(256, 384)))
    ]
    stopped = [choice for choice in endings if choice.text == "" and choice.finish_reason == "stop"]
    assert first.usage.completion_tokens == 1
    assert stopped
    assert all(isinstance(choice.model_extra["stop_reason"], int) for choice in stopped)


def test_min_tokens_keeps_stop_strings_from_ending_too_early(client):
    text = long_text(client)
    extra = {"ignore_eos": True, "min_tokens": 50}
    answer = client.completions.create(**{**LONG, "extra_body": extra}, stop=text[:1])
    assert answer.usage.completion_tokens > 50


def test_models_are_listed_and_found_by_name(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").model_extra["max_model_len"] == 512
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other/name")


def test_errors_are_the_sdks_own_classes(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="tiny", prompt=[5] * 600)
    assert long.value.code == "context_length_exceeded"
    assert "512" in long.value.message
    assert "600" in long.value.message


def test_an_error_of_a_stream_is_raised_before_it_begins(client):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=[], stream=True)
