"""`LLM`: the same answers as the server's, without one."""

import re

import pytest

from pagoda_engine import LLM, SamplingParams

MESSAGES = [{"role": "user", "content": "The quick brown fox"}]
GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def llm(tiny_model):
    return LLM(str(tiny_model), device="cpu", dtype="float32", kv_cache_memory_bytes=2 << 20)


def test_generation_is_the_servers(llm, client):
    """Texts and token ids, several prompts at once, in the prompts' order."""
    prompts = ["The quick brown fox", "你好，世界", [7, 300, 12]]
    answers = [client.completions.create(model="tiny", prompt=one, max_tokens=12, temperature=0) for one in prompts]
    completions = llm.generate(prompts, GREEDY, use_tqdm=False)
    assert [one.text for one in completions] == [answer.choices[0].text for answer in answers]


def test_chat_is_the_servers(llm, client):
    """One conversation or several, through the model's own template."""
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=12, temperature=0)
    [alone] = llm.chat(MESSAGES, GREEDY, use_tqdm=False)
    assert alone.text == answer.choices[0].message.content
    assert [one.text for one in llm.chat([MESSAGES, MESSAGES], GREEDY, use_tqdm=False)] == [alone.text] * 2


def test_a_message_that_the_template_does_not_take_is_an_error(llm):
    """Before anything is generated, in words."""

    class NoText:
        def __str__(self):
            raise TypeError("no text")

    with pytest.raises(ValueError, match="chat template does not take these messages: no text"):
        llm.chat([{"role": "user", "content": NoText()}], GREEDY)


def test_the_progress_bar_tells_tokens_a_second(llm, capsys):
    """As many prompts as there are, and both speeds."""
    llm.generate(["fox", "dog"], GREEDY)
    err = capsys.readouterr().err
    assert "2/2" in err
    assert re.search(r"input \d+ tokens/s, output \d+ tokens/s", err)


def test_no_bar_is_drawn_where_none_is_wanted(llm, capsys):
    llm.generate(["fox"], GREEDY, use_tqdm=False)
    assert capsys.readouterr().err == ""
