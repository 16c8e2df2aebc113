"""The generic runner feeds tokens on that the host has not read yet, and gives the same text as without."""

import random

import pytest
import torch

from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore, EngineInfo
from pagoda_engine.core.scheduler import Scheduler, SchedulerConfig
from pagoda_engine.model.checkpoint import Checkpoint
from pagoda_engine.model.kv_cache import LayerShape, allocate
from pagoda_engine.model.loader import load
from pagoda_engine.model.runner import ModelRunner
from pagoda_engine.model.torch_attention import TorchAttention
from pagoda_engine.sampling_params import SamplingParams

BLOCK_SIZE = 4
MAX_MODEL_LEN = 80


@pytest.fixture(scope="module")
def model(tiny_model):
    checkpoint = Checkpoint.at(tiny_model("llama"))
    options = {"dtype": torch.float32, "device": torch.device("cpu"), "dummy": False}
    return load(checkpoint, checkpoint.config(), **options, on_percent=lambda percent: None)


def engine_over(model, *, overlaps: bool, num_blocks: int = 200) -> EngineCore:
    shapes = (LayerShape(2, 8, 8, torch.float32),) * 3
    layers = allocate(shapes, num_blocks, BLOCK_SIZE, torch.device("cpu"))
    runner = ModelRunner(model, layers, BLOCK_SIZE, TorchAttention, overlaps=overlaps)
    config = SchedulerConfig(6, 24, 10, MAX_MODEL_LEN)
    info = EngineInfo(MAX_MODEL_LEN, 211, frozenset({2}), num_blocks, BLOCK_SIZE)
    return EngineCore(Scheduler(config, BlockPool(num_blocks, BLOCK_SIZE)), runner, info)


def prompts() -> list[list[int]]:
    dice = random.Random(3)
    shared = [dice.randrange(3, 211) for _ in range(18)]
    return [[*shared[: dice.randrange(19)], dice.randrange(3, 211)] for _ in range(12)]


def params() -> list[SamplingParams]:
    """Greedy and drawn, ended by length, by a likely stop token, or not before some tokens."""
    greedy = SamplingParams(temperature=0, max_tokens=20)
    drawn = [SamplingParams(temperature=1.0, top_p=0.9, seed=seed, max_tokens=25) for seed in range(4)]
    stopped = [SamplingParams(temperature=0, max_tokens=30, stop_token_ids=tuple(range(at, 211, 9))) for at in range(4)]
    late = [
        SamplingParams(temperature=0.7, seed=seed, max_tokens=30, min_tokens=9, stop_token_ids=tuple(range(200)))
        for seed in range(3)
    ]
    return [greedy, *drawn, *stopped, *late]


@pytest.mark.parametrize("num_blocks", [200, 24], ids=["room for all", "room for a few"])
@pytest.mark.parametrize("arrivals", [1, 12])
def test_texts_are_token_identical_with_and_without_overlap(model, generate, num_blocks, arrivals):
    plain = engine_over(model, overlaps=False, num_blocks=num_blocks)
    want = generate(plain, prompts(), params(), arrivals=arrivals)
    overlapped = engine_over(model, overlaps=True, num_blocks=num_blocks)
    generate(overlapped, prompts()[:1], SamplingParams(max_tokens=1))  # now it expects short answers
    assert generate(overlapped, prompts(), params(), arrivals=arrivals) == want
    lengths = [len(text) for text in want]
    assert len(set(lengths)) > 4, "some must end by a stop token, one step after it was counted on"
    if num_blocks == 24:
        assert overlapped.stats().preemptions > 0
