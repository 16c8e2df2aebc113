"""Rotary embeddings that follow the longest text of a batch are settled, so that requests leave each other alone."""

import pytest
import torch
from tests.engine.model import tiny

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
SHORT = [[5, 6, 7], [9] * 20 + [11], list(range(3, 40))]
LONG = [list(range(3, 80)), list(range(100, 170))]


def longrope(**more) -> dict:
    """Made for 64 tokens and stretched to 256: other frequencies above 64."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [1.0 + pair for pair in range(8)]}
    original = {"original_max_position_embeddings": 64}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors, **original, **more}
    return {"rope_parameters": rope, **original, "sliding_window": None}


@pytest.fixture
def stretched(tmp_path):
    """A Phi-3 with LongRoPE and its checkpoint."""
    model = tiny.model(tiny.config("phi3", **longrope()))
    model.save_pretrained(tmp_path)
    return model, tmp_path


def texts(model, prompts) -> list[list[int]]:
    model.generation_config.eos_token_id = None
    rows = [torch.tensor([prompt]) for prompt in prompts]
    texts = [model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=8)[0] for row in rows]
    return [text[len(prompt) :].tolist() for text, prompt in zip(texts, prompts, strict=True)]


def test_below_the_original_length_frequencies_are_the_short_ones(stretched, build, generate):
    model, path = stretched
    assert generate(build(path, max_model_len=64), SHORT, GREEDY) == texts(model, SHORT)


def test_above_it_they_are_the_long_ones_for_short_texts_too(stretched, build, generate):
    """transformers agrees on long texts; of short ones it changes its mind when they get long, or in long company."""
    model, path = stretched
    engine = build(path, max_model_len=256)
    assert generate(engine, LONG, GREEDY) == texts(model, LONG)
    alone = [generate(engine, [prompt], GREEDY)[0] for prompt in SHORT]
    assert alone != texts(model, SHORT)
    assert generate(build(path, max_model_len=256), SHORT + LONG, GREEDY) == alone + texts(model, LONG)


def test_a_family_that_cannot_be_settled_says_up_to_which_length_it_runs(tmp_path, build, generate):
    """PhiMoE has a rule of its own for long texts."""
    config = tiny.config("phimoe", **longrope(short_mscale=1.0, long_mscale=1.3))
    model = tiny.model(config)
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupported, match="set --max-model-len to 64 or less"):
        build(tmp_path)
    assert generate(build(tmp_path, max_model_len=64), SHORT, GREEDY) == texts(model, SHORT)
