"""The GPU's runner gives the generic runner's text, in Triton's interpreter: small shapes, everything else as it is."""

import dataclasses
import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM

from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore
from pagoda_engine.core.scheduler import Scheduler, SchedulerConfig
from pagoda_engine.kernels.paged import LayerCache
from pagoda_engine.model import attention
from pagoda_engine.model.fused.recognise import recognise
from pagoda_engine.model.gpu.execution import Plain, graph_sizes
from pagoda_engine.model.gpu.runner import GpuRunner, Limits
from pagoda_engine.model.gpu.start import CudaRunners
from pagoda_engine.model.gpu.weights import take_over
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=5)
PROMPTS = [[5], [9, 8, 7], [*range(20, 38)], [*range(20, 36), 4]]
BLOCK = 4


class Overlapping(Plain):
    """As on a GPU, the engine launches a step before it reads the one before."""

    overlaps = True


@pytest.fixture
def on_gpu_path(tiny_model, build):
    """An engine on the GPU's runner over a family's checkpoint, and one on the generic path."""

    def make(family, execution=None, *, tokens=24, sequences=4, blocks=40):
        reference = build(tiny_model(family), max_num_seqs=sequences, max_model_len=64)
        attention.register()
        model = AutoModelForCausalLM.from_pretrained(
            tiny_model(family), dtype=torch.float32, attn_implementation=attention.IMPLEMENTATION
        ).eval()
        weights = take_over(recognise(model, 64))
        layer = weights.layers[0]
        shape = (blocks, BLOCK, layer.kv_heads, layer.dim)
        # What a block held before must not matter, NaN even.
        cache = tuple(
            LayerCache(torch.full(shape, float("nan")), torch.full(shape, float("nan"))) for _ in weights.layers
        )
        config = SchedulerConfig(sequences, tokens, tokens, 64)
        limits = Limits(tokens, sequences, sequences + config.max_scored_tokens, 64, graph_sizes(sequences))
        runner = GpuRunner(weights, cache, BLOCK, limits, execution or Plain())
        runner.prepare()
        info = dataclasses.replace(reference.info, num_blocks=blocks, block_size=BLOCK)
        return EngineCore(Scheduler(config, BlockPool(blocks, BLOCK)), runner, info), reference

    return make


@pytest.mark.parametrize("family", ["llama-tied", "llama-biased", "mistral-window", "qwen3"])
def test_greedy_text_is_the_generic_runners_with_arrivals_and_chunks(on_gpu_path, generate, family):
    engine, reference = on_gpu_path(family)
    want = generate(reference, PROMPTS, GREEDY)
    assert len({tuple(text) for text in want}) == len(want), "the reference must tell its prompts apart"
    assert generate(engine, PROMPTS, GREEDY, arrivals=2) == want


def test_tokens_in_flight_are_taken_on_the_device(on_gpu_path, generate):
    engine, reference = on_gpu_path("llama", Overlapping())
    assert generate(engine, PROMPTS, GREEDY, arrivals=1) == generate(reference, PROMPTS, GREEDY)


def test_preempted_requests_get_their_new_blocks(on_gpu_path, generate):
    engine, reference = on_gpu_path("llama", Overlapping(), blocks=10)
    generate(engine, PROMPTS[:1], dataclasses.replace(GREEDY, max_tokens=1))  # short answers are expected from here on
    long = dataclasses.replace(GREEDY, max_tokens=12)
    assert generate(engine, PROMPTS, long) == generate(reference, PROMPTS, long)
    assert engine.stats().preemptions > 0


def test_drawn_tokens_and_edited_logits_are_the_general_samplers(on_gpu_path, generate):
    """Rows that the kernel draws, and rows that it leaves to the general sampler, in one batch."""
    params = [
        SamplingParams(temperature=1.0, seed=1, max_tokens=4),
        SamplingParams(temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, seed=2, max_tokens=4),
        SamplingParams(temperature=1.5, repetition_penalty=1.3, seed=3, max_tokens=4),
        SamplingParams(temperature=0, min_tokens=4, max_tokens=4),
    ]
    engine, reference = on_gpu_path("llama", Overlapping())
    assert generate(engine, PROMPTS, params) == generate(reference, PROMPTS, params)


def test_a_runner_that_was_warmed_writes_the_same_text_and_compiles_nothing_more(tiny_model, build, generate):
    reference = build(tiny_model("qwen2"), max_num_seqs=3, max_model_len=40)
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        tiny_model("qwen2"), dtype=torch.float32, attn_implementation=attention.IMPLEMENTATION
    ).eval()
    config = SchedulerConfig(3, 20, 20, 40)
    runners = CudaRunners(model, config, BLOCK, Group.alone())
    assert runners.rehearsal_blocks() * BLOCK > 20
    cache = tuple(LayerCache(*torch.zeros(2, 40, BLOCK, 2, 8)) for _ in range(3))
    runner = runners.make(cache)
    runners.rehearse(runner)
    runners.warm_up(runner)
    info = dataclasses.replace(reference.info, num_blocks=40, block_size=BLOCK)
    scheduler = Scheduler(config, BlockPool(40, BLOCK))
    engine = EngineCore(scheduler, runner, info, late_compiles=runners.late_compiles)
    assert generate(engine, PROMPTS, GREEDY) == generate(reference, PROMPTS, GREEDY)
    assert engine.stats().late_compiles == 0


def test_sizes_to_prepare_reach_the_largest_batch_and_leave_little_padding():
    assert graph_sizes(1) == (1,)
    assert graph_sizes(6) == (1, 2, 4, 6)
    for most in (64, 100, 256, 1000):
        sizes = graph_sizes(most)
        assert sizes[-1] == most
        assert list(sizes) == sorted(set(sizes))
        assert all(later <= 2 * size for size, later in itertools.pairwise(sizes))
