"""How many compiled kernels steps of all sizes ask for: {kernel: number} as JSON on stdout.

A process of its own, like `compile_launches.py`; nothing is compiled, since Triton's hook hears of each launch before.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import triton

sys.path.insert(0, str(Path(__file__).parent))

from compile_launches import AbsentDevice

from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.model.attention import AttentionOptions, LayerCache, Layout
from pagoda_engine.model.triton_attention import TritonAttention

HEADS, KV_HEADS, DIM, BLOCK = 8, 2, 80, 16


class Counter:
    def __init__(self) -> None:
        self.asked: dict[str, set[Any]] = defaultdict(set)

    def __call__(self, *, key: Any, fn: Any, **_: Any) -> bool:
        self.asked[fn.name].add(str(key))
        return True


def step(sequences: list[tuple[int, int]]) -> None:
    """A step of sequences with (queries, context) each, as transformers' modelling code hands it over."""
    starts = tuple(accumulate((count for count, _ in sequences), initial=0))
    tokens = starts[-1]
    tables = tuple((0,) * -(-context // BLOCK) for _, context in sequences)
    contexts = tuple(context for _, context in sequences)
    kernels = TritonAttention(
        Layout(starts, contexts, torch.zeros(tokens, dtype=torch.int64), tables, BLOCK), Chip(132)
    )
    cache = LayerCache(*(torch.zeros(1, BLOCK, KV_HEADS, DIM, dtype=torch.bfloat16) for _ in range(2)))

    def projected(heads: int) -> torch.Tensor:
        rows = torch.zeros(1, tokens, heads * DIM, dtype=torch.bfloat16)
        return rows.view(1, tokens, heads, DIM).transpose(1, 2)

    cos = torch.ones(1, 1, tokens, DIM, dtype=torch.bfloat16)
    queries, keys = projected(HEADS) * cos, projected(KV_HEADS) * cos
    kernels.write_kv(cache, keys[0].transpose(0, 1), projected(KV_HEADS)[0].transpose(0, 1))
    kernels.paged_attention(cache, queries[0].transpose(0, 1), AttentionOptions(DIM**-0.5))


def main() -> None:
    triton.runtime.driver.set_active(AbsentDevice(90))
    triton.knobs.runtime.jit_cache_hook = counter = Counter()
    for sequences in ([(1, 1)], [(1, 999)] * 16, [(1, 50)] * 3, [(7, 7)], [(16, 40), (1, 16)], [(2, 300)] * 200):
        step(sequences)
    json.dump({kernel: len(keys) for kernel, keys in counter.asked.items()}, sys.stdout)


if __name__ == "__main__":
    main()
