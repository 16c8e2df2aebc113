"""The fused path gives the tokens of the generic one where it is pressed: for blocks, for room, by others' NaN."""

import random
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from pagoda_engine.core.request import Request
from pagoda_engine.model.fused.runner import FusedRunner
from pagoda_engine.model.runner import ModelRunner
from pagoda_engine.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=16)
PRESSED = ["llama-biased", "mistral-window", "qwen3"]


def prompts(*lengths: int) -> list[list[int]]:
    dice = random.Random(1)
    return [[dice.randrange(3, 200) for _ in range(length)] for length in lengths]


@pytest.fixture
def both(build):
    """A model's two engines: fused, and generic, which blocks of eight tokens make it."""

    def make(path, **engine_args):
        fused, generic = build(path, **engine_args), build(path, block_size=8)
        assert isinstance(fused._runner, FusedRunner)
        assert isinstance(generic._runner, ModelRunner)
        return fused, generic

    return make


@pytest.mark.parametrize("family", PRESSED)
def test_a_cache_for_two_long_requests_preempts_and_changes_nothing(tiny_model, both, generate, family):
    token_bytes = 3 * 2 * 2 * (24 if family == "qwen3" else 8) * 4
    fused, generic = both(tiny_model(family), max_model_len=96, kv_cache_memory_bytes=12 * 16 * token_bytes)
    assert fused.info.num_blocks == 12
    shared = prompts(40)[0]
    asked = [*prompts(1, 15, 16, 17, 33, 60, 47), shared, shared, [*shared[:33], 7]]
    long = SamplingParams(temperature=0, max_tokens=36)
    generate(fused, asked[:1], SamplingParams(max_tokens=1))  # what ends early lets too many in
    assert generate(fused, asked, long) == generate(generic, asked, long)
    assert fused.stats().preemptions > 0
    assert generate(fused, asked, GREEDY, arrivals=3) == generate(generic, asked, GREEDY), "on what that left behind"


def test_64_requests_run_at_once_as_they_run_alone(tiny_model, both, generate):
    fused, generic = both(tiny_model("llama"))
    asked = prompts(*range(1, 65))
    assert generate(fused, asked, GREEDY) == generate(generic, asked, GREEDY)


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=211, max_position_embeddings=8192, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_4k_tokens_of_context_in_chunks_beside_short_requests(long_model, both, generate):
    fused, generic = both(long_model, kv_cache_memory_bytes=64 << 20, max_num_batched_tokens=1000)
    asked = prompts(4100, 9, 4100, 300)
    asked[2] = asked[0][:2500] + asked[2][2500:]  # a prefix in common
    assert generate(fused, asked, GREEDY, arrivals=1) == generate(generic, asked, GREEDY, arrivals=1)


@pytest.fixture(scope="module")
def poisoned(tiny_model, tmp_path_factory):
    """A model whose token 201 is embedded as NaN: whoever says it has NaN in all layers' keys and values."""
    folder = tmp_path_factory.mktemp("poisoned")
    model = AutoModelForCausalLM.from_pretrained(tiny_model("llama"))
    model.model.embed_tokens.weight.data[201] = float("nan")
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_request_of_nan_ends_with_an_error_and_its_neighbours_never_notice(poisoned, build, generate, dtype):
    asked = prompts(5, 16, 31, 40)
    engine = build(poisoned, dtype=dtype, max_model_len=96, kv_cache_memory_bytes=16 * 16 * 3 * 2 * 2 * 8 * 4)
    alone = [generate(engine, [prompt], GREEDY)[0] for prompt in asked]
    for _ in range(3):  # later rounds are given blocks that NaN was left in
        requests = [
            Request(str(index), prompt, GREEDY, frozenset({2}), time.monotonic())
            for index, prompt in enumerate([[5, 201, 6], *asked, [9] * 20 + [201] * 20])
        ]
        for request in requests:
            engine.add(request)
        said = {request.id: [] for request in requests}
        errors = {}
        while engine.has_work:
            for output in engine.step():
                said[output.request_id] += output.token_ids
                if output.error:
                    errors[output.request_id] = output.error
        assert errors.keys() == {"0", "5"}
        assert all("not finite" in error for error in errors.values())
        assert [said[str(index)] for index in range(1, 5)] == alone
        engine.check_integrity()


def test_blocks_of_another_size_take_the_generic_path_and_the_log_says_so(tiny_model, build, caplog):
    assert isinstance(build(tiny_model("llama"), block_size=32)._runner, ModelRunner)
    assert "--block-size is 32, and the kernels work on blocks of 16" in caplog.text
    assert isinstance(build(tiny_model("llama"), dtype="float16")._runner, ModelRunner)
    assert "--dtype is float16, and the kernels compute bfloat16 and float32" in caplog.text
