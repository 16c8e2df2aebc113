"""A weight that is not a number ends the requests that meet it, and no other sees anything of it."""

import random
import shutil

import pytest
from safetensors.torch import load_file, save_file

from pagoda_engine.core.request import FinishReason, Request
from pagoda_engine.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=20)
BLOCK_BYTES_OF_A_TOKEN = 3 * 2 * 2 * 8 * 4  # layers, keys and values, KV heads, features, float32


def prompts() -> list[list[int]]:
    dice = random.Random(11)
    return [[dice.randrange(3, 211) for _ in range(length)] for length in (3, 17, 30)]


@pytest.fixture
def poisoned(tiny_model, tmp_path):
    """A copy of the tiny model in which one token's embedding is not a number."""

    def make(token: int):
        folder = shutil.copytree(tiny_model("llama"), tmp_path / "poisoned")
        weights = load_file(folder / "model.safetensors")
        weights["model.embed_tokens.weight"][token] = float("nan")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


@pytest.mark.parametrize("block_size", [16, 8], ids=["our own kernels", "transformers' layers"])
def test_neighbours_of_a_poisoned_request_are_token_identical_and_so_is_who_gets_its_blocks(
    tiny_model, build, generate, poisoned, block_size
):
    size = {"block_size": block_size, "max_model_len": 96, "kv_cache_memory_bytes": 160 * BLOCK_BYTES_OF_A_TOKEN}
    want = generate(build(tiny_model("llama"), **size), prompts(), GREEDY)
    met = {token for tokens in (*prompts(), *want) for token in tokens}
    token = min(set(range(3, 211)) - met)
    engine = build(poisoned(token), **size)
    bad = Request("bad", [7] * 20 + [token] + [8] * 12, GREEDY, frozenset({2}), 0.0)
    good = [Request(str(index), prompt, GREEDY, frozenset({2}), 0.0) for index, prompt in enumerate(prompts())]
    for request in (good[0], bad, *good[1:]):
        engine.add(request)
    texts: dict[str, list[int]] = {request.id: [] for request in good}
    failed = []
    while engine.has_work:
        for output in engine.step():
            if output.request_id != "bad":
                texts[output.request_id] += output.token_ids
                continue
            failed.append(output)
            assert bad.blocks == [], "its blocks are free in the step that tells of its end"
            engine.check_integrity()
    assert [output.finish_reason for output in failed] == [FinishReason.ERROR]
    assert "not finite" in failed[0].error
    assert list(texts.values()) == want
    assert engine.stats().kv_usage == 0
    for _ in range(3):
        assert generate(engine, prompts(), GREEDY) == want, "in blocks that held what is not a number"


def test_a_token_id_that_the_model_does_not_have_is_refused_before_it_reaches_the_model(tiny_model, build, generate):
    engine = build(tiny_model("llama"))
    want = generate(engine, prompts(), GREEDY)
    texts: dict[str, list[int]] = {}
    for index, prompt in enumerate([*prompts(), [5, 211], [5, -1]]):
        engine.add(Request(str(index), prompt, GREEDY, frozenset({2}), 0.0))
        texts[str(index)] = []
    errors = {}
    while engine.has_work:
        for output in engine.step():
            texts[output.request_id] += output.token_ids
            if output.error:
                errors[output.request_id] = output.error
    assert [texts[str(index)] for index in range(3)] == want
    assert set(errors) == {"3", "4"}
    assert "token id 211" in errors["3"]
    assert "token id -1" in errors["4"]
