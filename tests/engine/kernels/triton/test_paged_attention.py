"""Attention in Triton equals its torch twin, with foreign NaN in the cache, over all that a model may ask of it.

Where there is no GPU the kernels run in Triton's interpreter. It multiplies bfloat16's bits as if they were integers
and loses carries when it rounds to float8, so here are float32, float16, and float8 of numbers that it can hold;
bfloat16 is left to `test_compiled_attention.py` and to a GPU.
"""

import random
from itertools import accumulate, product

import pytest
import torch
from tests.pairwise import pairwise

from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.model.attention import AttentionOptions, LayerCache, Layout
from pagoda_engine.model.torch_attention import TorchAttention
from pagoda_engine.model.triton_attention import TritonAttention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHIP = Chip(processors=3)  # few, so that short sequences are cut too

# Queries and what came before them, by sequence.
MIXES = {
    "decodes": [(1, 0), (1, 299), (1, 15), (1, 16)],
    "prompts": [(2, 0), (40, 0), (70, 0)],
    "chunks": [(3, 14), (1, 280), (1, 0), (33, 150)],
}
GRID = {
    "heads": [(4, 4), (8, 2), (7, 1), (40, 2)],
    "dims": [(64, 64), (80, 80), (96, 96), (128, 128), (256, 256), (192, 128)],
    "block_size": [16, 4, 32],
    "dtype": [torch.float32, torch.float16, torch.float8_e4m3fn],
    "window": [None, 1, 33, 256],
    "softcap": [None, 5.0],
    "sinks": [False, True],
    "mix": list(MIXES),
}


def check(*, heads, dims, block_size, dtype, window, softcap, sinks, mix, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sequences = MIXES[mix] if isinstance(mix, str) else mix
    query_heads, kv_heads = heads
    compute = torch.float16 if dtype == torch.float8_e4m3fn else dtype
    # Each of two caches: the twin's and ours.
    counts = [-(-(new + past) // block_size) for new, past in sequences]
    blocks = list(range(sum(counts) + 3))
    random.Random(seed).shuffle(blocks)
    tables = tuple(tuple(blocks.pop() for _ in range(count)) for count in counts)
    scales = 2.0 ** (torch.arange(kv_heads) % 3 - 1) if dtype == torch.float8_e4m3fn else None

    def numbers(*shape):
        x = torch.randn(*shape, generator=generator).to(dtype).to(compute)
        return (x if scales is None else x * scales[:, None].to(compute)).to(DEVICE)

    def cache():
        parts = [torch.full((sum(counts) + 3, block_size, kv_heads, dim), float("nan")) for dim in dims]
        on = None if scales is None else scales.to(DEVICE)
        return LayerCache(*(part.to(dtype).to(DEVICE) for part in parts), key_scale=on, value_scale=on)

    def layout(spans):
        slots = [t[at // block_size] * block_size + at % block_size for t, (a, b) in spans for at in range(a, b)]
        return Layout(
            tuple(accumulate((b - a for _, (a, b) in spans), initial=0)),
            tuple(b for _, (_, b) in spans),
            torch.tensor(slots, device=DEVICE),
            tuple(t for t, _ in spans),
            block_size,
        )

    ours, twins = cache(), cache()
    pasts = [(table, (0, past)) for table, (_, past) in zip(tables, sequences, strict=True) if past]
    news = [(table, (past, past + new)) for table, (new, past) in zip(tables, sequences, strict=True)]
    for spans in (pasts, news) if pasts else (news,):
        step = layout(spans)
        tokens = step.starts[-1]
        keys, values = numbers(tokens, kv_heads, dims[0]), numbers(tokens, kv_heads, dims[1])
        TorchAttention(step).write_kv(twins, keys, values)
        TritonAttention(step, CHIP).write_kv(ours, keys, values)
    for one, other in ((ours.keys, twins.keys), (ours.values, twins.values)):
        assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))

    # As transformers hands them over: heads before tokens in memory.
    queries = torch.randn(query_heads, tokens, dims[0], generator=generator).to(compute).to(DEVICE).transpose(0, 1)
    extra = torch.randn(query_heads, generator=generator).to(DEVICE) if sinks else None
    options = AttentionOptions(dims[0] ** -0.5, window, softcap, extra)
    expected = TorchAttention(step).paged_attention(twins, queries, options)
    found = TritonAttention(step, CHIP).paged_attention(ours, queries, options)
    tolerance = 2e-5 if compute == torch.float32 else 4e-3
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def whole_grid():
    """All combinations of the parameters that decide which code runs; the others by chance."""
    firsts = ["heads", "dims", "window", "mix"]
    dice = random.Random(0)
    for values in product(*(GRID[first] for first in firsts)):
        chosen = dict(zip(firsts, values, strict=True))
        yield {name: chosen[name] if name in chosen else dice.choice(choices) for name, choices in GRID.items()}


def name(case):
    return "-".join(str(value).replace("torch.", "").replace(" ", "") for value in case.values())


@pytest.mark.parametrize("case", pairwise(**GRID), ids=name)
def test_attention_equals_its_twin(case):
    check(**case)


@pytest.mark.full
@pytest.mark.parametrize("case", list(whole_grid()), ids=name)
def test_attention_equals_its_twin_in_the_whole_grid(case):
    check(**case)


@pytest.mark.full
@pytest.mark.parametrize("window", [None, 1000])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 1023, 1024, 2049, 4096])
def test_attention_equals_its_twin_at_any_length(length, window):
    shape = {"dims": (64, 64), "block_size": 16, "softcap": None, "sinks": False, "window": window}
    mix = [(1, length - 1), (1, 40), (min(length, 300), max(0, length - 300))]
    check(heads=(4, 2), dtype=torch.float32, mix=mix, **shape)


def test_what_is_too_large_for_float8_is_stored_as_the_largest():
    scales = torch.tensor([0.5], device=DEVICE)
    parts = (torch.zeros(1, 4, 1, 16, device=DEVICE).to(torch.float8_e4m3fn) for _ in range(2))
    layer = LayerCache(*parts, key_scale=scales, value_scale=scales)
    layout = Layout((0, 1), (1,), torch.tensor([2], device=DEVICE), ((0,),), 4)
    keys = torch.full((1, 1, 16), 1e4, device=DEVICE)
    TritonAttention(layout, CHIP).write_kv(layer, keys, -keys)
    assert layer.keys[0, :, 0, 0].float().tolist() == [0, 0, 448, 0]
    assert layer.values[0, :, 0, 0].float().tolist() == [0, 0, -448, 0]
