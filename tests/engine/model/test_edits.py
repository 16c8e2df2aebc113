"""Bans, biases and penalties do to logits what vLLM documents, and what transformers' own processors do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import NoBadWordsLogitsProcessor, RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor

from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.logits.bans import ban
from pagoda_engine.model.logits.penalties import bias, penalise
from pagoda_engine.sampling_params import SamplingParams

VOCABULARY = 12


def work(prompt, output, **params) -> Work:
    request = Request("r", list(prompt), SamplingParams(**params), frozenset(), 0.0)
    request.tokens.extend(output)
    return Work(request, 0, len(request.tokens), samples=True)


def edited(rows: torch.Tensor, works: list[Work]) -> torch.Tensor:
    rows = rows.clone()
    ban(rows, works)
    bias(rows, works)
    penalise(rows, works)
    return rows


def reference(row: list[float], one: Work) -> list[float]:
    """Token by token, in vLLM's order: allowed, bad, bias, repetition, frequency, presence."""
    params, prompt = one.request.params, list(one.request.prompt_token_ids)
    output = list(one.request.tokens[len(prompt) : one.stop])
    result = []
    for token, value in enumerate(row):
        if params.allowed_token_ids is not None and token not in params.allowed_token_ids:
            value = -math.inf
        for *before, last in params.bad_token_ids:
            if token == last and output[len(output) - len(before) :] == before:
                value = -math.inf
        value += params.logit_bias.get(token, 0.0)
        if token in prompt or token in output:
            value = value / params.repetition_penalty if value > 0 else value * params.repetition_penalty
        value -= params.frequency_penalty * output.count(token)
        value -= params.presence_penalty * (token in output)
        result.append(value)
    return result


TOKENS = st.integers(0, VOCABULARY - 1)
WORKS = st.builds(
    work,
    prompt=st.lists(TOKENS, min_size=1, max_size=8),
    output=st.lists(TOKENS, max_size=8),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3, 10.0]),
    presence_penalty=st.sampled_from([0.0, -2.0, 0.7, 2.0]),
    frequency_penalty=st.sampled_from([0.0, -2.0, 0.7, 2.0]),
    logit_bias=st.dictionaries(TOKENS, st.sampled_from([-100.0, -1.0, 0.5, 100.0]), max_size=4),
    allowed_token_ids=st.none() | st.lists(TOKENS, min_size=1, max_size=6, unique=True).map(tuple),
    bad_token_ids=st.lists(st.lists(TOKENS, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple),
)


@settings(max_examples=200)
@given(works=st.lists(WORKS, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_every_mix_of_edits_is_the_reference_in_one_batch(works, seed):
    rows = torch.randn(len(works), VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 4
    for row, one, found in zip(rows, works, edited(rows, works), strict=True):
        torch.testing.assert_close(found, torch.tensor(reference(row.tolist(), one)), rtol=1e-5, atol=1e-5)


@settings(max_examples=100)
@given(text=st.lists(TOKENS, min_size=2, max_size=20), cut=st.integers(1, 19), penalty=st.sampled_from([0.3, 1.2, 5.0]))
def test_the_repetition_penalty_is_transformers_own(text, cut, penalty):
    """It counts prompt and output alike, so it does not matter where the one ends and the other begins."""
    row = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(len(text))) * 4
    cut = min(cut, len(text) - 1)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([text]), row)
    found = edited(row, [work(text[:cut], text[cut:], repetition_penalty=penalty)])
    torch.testing.assert_close(found, expected)


@settings(max_examples=100)
@given(
    output=st.lists(TOKENS, min_size=1, max_size=8),
    bad=st.lists(st.lists(TOKENS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4, unique=True),
)
def test_bad_words_are_transformers_own_within_the_output(output, bad):
    row = torch.zeros(1, VOCABULARY)
    expected = NoBadWordsLogitsProcessor([list(sequence) for sequence in bad])(torch.tensor([output]), row)
    assert torch.equal(edited(row, [work([0], output, bad_token_ids=tuple(bad))]), expected)


def test_a_bad_word_is_not_begun_by_the_prompt():
    """Only what is generated counts, as in vLLM: the prompt is the user's own."""
    row = torch.zeros(1, VOCABULARY)
    assert edited(row, [work([4, 5], [], bad_token_ids=((4, 5, 6),))]).min() == 0
    assert edited(row, [work([4], [5], bad_token_ids=((4, 5, 6),))]).min() == 0
    assert edited(row, [work([4], [4, 5], bad_token_ids=((4, 5, 6),))])[0].argmin() == 6


def test_a_bias_is_transformers_own():
    row = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(1))
    wanted = {3: -7.5, 5: 100.0}
    expected = SequenceBiasLogitsProcessor({(token,): value for token, value in wanted.items()})(
        torch.tensor([[0]]), row
    )
    torch.testing.assert_close(edited(row, [work([0], [], logit_bias=wanted)]), expected)


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_presence_and_frequency_do_not_count_the_prompt(name):
    row = torch.ones(1, VOCABULARY)
    found = edited(row, [work([4, 4, 4], [5, 5], **{name: 0.5})])[0].tolist()
    assert found[4] == 1
    assert found[5] == {"presence_penalty": 0.5, "frequency_penalty": 0.0}[name]
    assert found[6] == 1


def test_a_token_made_after_the_position_does_not_count():
    """A step that was launched before its request went on sees the text as it was."""
    one = work([1], [2, 3], presence_penalty=1.0)
    found = edited(torch.zeros(1, VOCABULARY), [Work(one.request, 1, 2, samples=True)])[0].tolist()
    assert [token for token, value in enumerate(found) if value < 0] == [2]
