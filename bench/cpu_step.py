"""`python bench/cpu_step.py`: one step of SmolLM2-135M's shapes on this CPU, random weights, three ways.

The fused decoder, the generic path through transformers' layers, and the products alone as torch computes them with
plain weights. They take turns in one process, so that a busy machine slows all of them, and ratios can be compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import SchedulerConfig, Work
from pagoda_engine.model import attention
from pagoda_engine.model.device import cpu_threads
from pagoda_engine.model.fusion import fused_runner
from pagoda_engine.model.kv_cache import LayerShape, allocate
from pagoda_engine.model.runner import ModelRunner
from pagoda_engine.model.torch_attention import TorchAttention
from pagoda_engine.sampling_params import SamplingParams

SMOLLM2 = LlamaConfig(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
CONTEXT, WIDEST, LONGEST, BLOCK = 320, 32, 2048, 16
PRODUCTS = [(960, 576, 30), (576, 576, 30), (3072, 576, 30), (576, 1536, 30), (49152, 576, 1)]
GREEDY = SamplingParams(temperature=0)
DRAWN = SamplingParams(temperature=0.7, top_k=50, top_p=0.95, seed=1)


def model(dtype: torch.dtype) -> LlamaForCausalLM:
    attention.register()
    made = LlamaForCausalLM._from_config(SMOLLM2, dtype=dtype, attn_implementation=attention.IMPLEMENTATION)
    return made.eval().requires_grad_(False)


def work(index: int, start: int, stop: int, params: SamplingParams) -> Work:
    request = Request(str(index), [(7 * index + at) % 49152 for at in range(stop)], params, frozenset(), 0.0)
    blocks = -(-stop // BLOCK)
    request.blocks = list(range(index * blocks, (index + 1) * blocks))
    return Work(request, start, stop, samples=True)


def products(dtype: torch.dtype, rows: int) -> Callable[[], None]:
    weights = [torch.randn(outputs, depth).to(dtype) for outputs, depth, times in PRODUCTS for _ in range(times)]
    inputs = {depth: torch.randn(rows, depth).to(dtype) for _, depth, _ in PRODUCTS}

    @torch.inference_mode()
    def run() -> None:
        for weight in weights:
            x = inputs[weight.shape[1]]
            F.linear(x[:WIDEST] if len(weight) == SMOLLM2.vocab_size else x, weight)

    return run


def medians(ways: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Milliseconds of each; they take turns, and the first round does not count."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            taken.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(taken[1:]) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    torch.set_num_threads(cpu_threads())
    blocks = WIDEST * CONTEXT // BLOCK
    cache = allocate((LayerShape(3, 64, 64, dtype),) * SMOLLM2.num_hidden_layers, blocks, BLOCK, torch.device("cpu"))
    generic = ModelRunner(model(dtype), cache, BLOCK, TorchAttention, overlaps=False)
    fused = fused_runner(model(dtype), SchedulerConfig(WIDEST, LONGEST, 512, LONGEST), blocks, BLOCK, print)
    if fused is None:
        raise SystemExit("the kernels do not run here; the log says why")
    print(f"{args.dtype}, {cpu_threads()} threads; medians of {args.rounds} rounds, ms")
    print("step                                 fused    generic   products   generic/fused   products/fused")
    cases = [
        *(
            (f"{n} x 1 token after {CONTEXT}", [work(i, CONTEXT - 1, CONTEXT, GREEDY) for i in range(n)])
            for n in (1, 8)
        ),
        (f"{WIDEST} x 1 token", [work(i, CONTEXT - 1, CONTEXT, GREEDY) for i in range(WIDEST)]),
        (f"{WIDEST} x 1 token, drawn", [work(i, CONTEXT - 1, CONTEXT, DRAWN) for i in range(WIDEST)]),
        *((f"a prompt of {length}", [work(0, 0, length, GREEDY)]) for length in (512, LONGEST)),
    ]
    for name, batch in cases:
        tokens = sum(len(one) for one in batch)
        ways = [lambda b=batch: fused.launch(b), lambda b=batch: generic.launch(b).samples(), products(dtype, tokens)]
        ours, theirs, alone = medians(ways, args.rounds)
        print(f"{name:30} {ours:11.1f} {theirs:10.1f} {alone:10.1f} {theirs / ours:14.2f}x {alone / ours:15.2f}x")


if __name__ == "__main__":
    main()
