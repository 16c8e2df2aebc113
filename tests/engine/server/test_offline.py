"""`LLM`: the same answers as the server's, without one."""

import dataclasses
import json
import re
import shutil

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


def test_logprobs_are_the_servers(llm, client):
    """Of the output, of the prompt, and of the token at which a text ends."""
    answer = client.completions.create(
        model="tiny", prompt="The quick brown fox", max_tokens=6, temperature=0, logprobs=2, echo=True
    )
    expected = answer.choices[0].logprobs.token_logprobs
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=2, prompt_logprobs=2)
    [found] = llm.generate(["The quick brown fox"], params, use_tqdm=False)
    told = [one.logprob for one in [*found.prompt_logprobs, *found.logprobs]]
    assert told == pytest.approx(expected[1:], abs=1e-4)
    assert [one.token_id for one in found.logprobs] == found.token_ids
    ending = dataclasses.replace(params, stop_token_ids=(found.token_ids[0],))
    [stopped] = llm.generate(["The quick brown fox"], ending, use_tqdm=False)
    assert (stopped.token_ids, len(stopped.logprobs)) == ([], 1)


def test_bad_words_are_not_written(llm):
    """Although the engine knows no words, only tokens."""
    prompt = ["The quick brown fox"]
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    [plain] = llm.generate(prompt, params, use_tqdm=False)
    word = next(one for one in plain.text.split() if one.isascii() and len(one) > 1)
    [found] = llm.generate(prompt, dataclasses.replace(params, bad_words=(word,)), use_tqdm=False)
    assert word not in found.text


def test_a_prompt_that_is_no_prompt_leaves_nothing_behind(llm):
    """Those before it in the list are not begun: the next call finds an idle engine."""
    with pytest.raises(OverflowError):
        llm.generate(["fox", [2**70]], GREEDY, use_tqdm=False)
    assert [one.error for one in llm.generate(["fox"], GREEDY, use_tqdm=False)] == [None]


def test_a_models_own_parameters_count_where_nothing_is_asked(llm, launch, tiny_model, tiny_argv, tmp_path):
    """Its generation config's, by `LLM` and by the server; what a request names is as it says."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    own = {"do_sample": True, "temperature": 0.7, "top_k": 9, "repetition_penalty": 1e6, "max_new_tokens": 11}
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **own}))
    params = SamplingParams(temperature=0.7, top_k=9, repetition_penalty=1e6, max_tokens=11, seed=0)
    offline = LLM(str(model), device="cpu", dtype="float32", kv_cache_memory_bytes=2 << 20)
    [found] = offline.generate(["hello"], use_tqdm=False)
    assert len(found.token_ids) == len({*found.token_ids}) <= 11
    assert offline.chat(MESSAGES, use_tqdm=False)[0].token_ids

    [asked] = llm.chat(MESSAGES, params, use_tqdm=False)
    with launch(str(model), *tiny_argv[1:]).openai() as client:
        chat = {"model": "tiny", "messages": MESSAGES, "seed": 0}
        answer = client.chat.completions.create(**chat)
        assert answer.choices[0].message.content == asked.text
        assert answer.usage.completion_tokens <= 11
        neutral = {"temperature": 0, "max_tokens": 30, "extra_body": {"repetition_penalty": 1.0, "ignore_eos": True}}
        greedy = client.chat.completions.create(**chat, **neutral)
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    assert greedy.choices[0].message.content == llm.chat(MESSAGES, params, use_tqdm=False)[0].text
