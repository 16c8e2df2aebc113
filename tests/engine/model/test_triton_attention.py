"""A model on Triton's attention gives the text that it gives on torch's, with batches, prefixes, chunks."""

import random
from functools import partial

import pytest
import torch

from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore, EngineInfo
from pagoda_engine.core.scheduler import Scheduler, SchedulerConfig
from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.model.checkpoint import Checkpoint
from pagoda_engine.model.kv_cache import allocate
from pagoda_engine.model.loader import load
from pagoda_engine.model.probe import probe
from pagoda_engine.model.runner import ModelRunner
from pagoda_engine.model.torch_attention import TorchAttention
from pagoda_engine.model.triton_attention import TritonAttention
from pagoda_engine.sampling_params import SamplingParams

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK_SIZE = 4


@pytest.mark.parametrize("family", ["llama", "qwen2-window"])
def test_texts_are_those_of_torch_attention(tiny_model, generate, family):
    checkpoint = Checkpoint.at(tiny_model(family))
    options = {"dtype": torch.float32, "device": DEVICE, "dummy": False}
    model = load(checkpoint, checkpoint.config(), **options, on_percent=lambda percent: None)
    shapes = probe(model, 64)

    def engine(kernels):
        layers = allocate(shapes, 20, BLOCK_SIZE, DEVICE)
        runner = ModelRunner(model, layers, BLOCK_SIZE, kernels, overlaps=False)
        scheduler = Scheduler(SchedulerConfig(4, 16, 8, 64), BlockPool(20, BLOCK_SIZE))
        return EngineCore(scheduler, runner, EngineInfo(64, 211, frozenset({2}), 20, BLOCK_SIZE))

    dice = random.Random(1)
    shared = [dice.randrange(3, 211) for _ in range(17)]
    prompts = [[*shared[: dice.choice([0, 9, 17])], dice.randrange(3, 211)] for _ in range(6)]
    params = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
    ours = engine(partial(TritonAttention, chip=Chip(processors=2)))
    assert generate(ours, prompts, params, arrivals=2) == generate(engine(TorchAttention), prompts, params, arrivals=2)
