"""Sampling parameters say what is wrong with them."""

import subprocess
import sys

import pytest

from pagoda_engine.sampling_params import SamplingParams


def test_defaults_and_edges_have_no_problem():
    assert SamplingParams().problem() is None
    edge = SamplingParams(temperature=0.0, top_p=1.0, top_k=1, min_p=1.0, seed=-(2**63), max_tokens=1, min_tokens=1)
    assert edge.problem() is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("min_p", 1.1),
        ("min_p", float("nan")),
        ("seed", 2**63),
        ("max_tokens", 0),
        ("min_tokens", 17),
        ("stop", ("",)),
        ("stop_token_ids", (-1,)),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("repetition_penalty", float("nan")),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", float("nan")),
        ("logit_bias", {5: 100.5}),
        ("logit_bias", {5: float("nan")}),
        ("logit_bias", {-5: 1.0}),
        ("allowed_token_ids", ()),
        ("allowed_token_ids", (-1,)),
        ("bad_words", ("",)),
        ("bad_token_ids", ((),)),
        ("bad_token_ids", ((-1,),)),
        ("logprobs", -1),
        ("prompt_logprobs", -1),
    ],
)
def test_a_value_out_of_range_is_named(field, value):
    problem = SamplingParams(**{field: value}).problem()
    assert problem is not None
    assert problem.startswith(field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logit_bias", {50: 1.0}),
        ("allowed_token_ids", (1, 50)),
        ("bad_token_ids", ((1, 50),)),
        ("stop_token_ids", (50,)),
    ],
)
def test_a_token_id_out_of_the_vocabulary_is_named(field, value):
    params = SamplingParams(**{field: value})
    assert params.problem(51) is None
    assert params.problem(50) == f"{field} holds token id 50; the model has 50 tokens, from 0 to 49"


def test_only_what_depends_on_the_text_reads_it():
    """All others may be chosen from while their last token is still on the device."""
    readers = [
        {"repetition_penalty": 1.1},
        {"presence_penalty": -0.1},
        {"frequency_penalty": 0.1},
        {"bad_token_ids": ((1, 2),)},
    ]
    others = [
        {},
        {"logit_bias": {1: 1.0}},
        {"allowed_token_ids": (1,)},
        {"bad_token_ids": ((1,), (2,))},
        {"logprobs": 5},
    ]
    assert [SamplingParams(**fields).reads_history for fields in readers] == [True] * 4
    assert [SamplingParams(**fields).reads_history for fields in others] == [False] * 5
    assert [SamplingParams(**fields).edits_logits for fields in (*readers, *others)] == [True] * 4 + [
        False,
        True,
        True,
        True,
        False,
    ]
    assert hash(SamplingParams(logit_bias={1: 1.0})) is not None


def test_importing_the_package_and_its_core_loads_neither_torch_nor_transformers():
    """The HTTP process validates with these modules and must start at once."""
    code = (
        "import sys, pagoda_engine, pagoda_engine.core.engine; from pagoda_engine import SamplingParams; "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
