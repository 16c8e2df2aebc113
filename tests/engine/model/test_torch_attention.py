"""The torch kernels against attention written out as loops over tokens."""

import math
import random

import pytest
import torch

from pagoda_engine.model.attention import AttentionOptions, LayerCache, Layout
from pagoda_engine.model.torch_attention import TorchAttention

HEADS, KV_HEADS, DIM, VALUE_DIM, BLOCK = 6, 2, 8, 5, 4


def naive(query, keys, values, options):
    """One query [heads, dim], the last token of keys [tokens, kv_heads, dim] and values."""
    first = 0 if options.window is None else max(0, len(keys) - options.window)
    rows = []
    for head in range(HEADS):
        kv_head = head // (HEADS // KV_HEADS)
        scores = [score * options.scale for score in (keys[first:, kv_head] @ query[head]).tolist()]
        if options.softcap is not None:
            scores = [options.softcap * math.tanh(score / options.softcap) for score in scores]
        weights = [math.exp(score) for score in scores]
        total = sum(weights) + (0 if options.sinks is None else math.exp(options.sinks[head]))
        rows.append(torch.tensor([weight / total for weight in weights]) @ values[first:, kv_head])
    return torch.stack(rows)


OPTIONS = [
    AttentionOptions(0.3),
    AttentionOptions(0.3, window=1),
    AttentionOptions(0.3, window=5),
    AttentionOptions(0.3, window=1000),
    AttentionOptions(0.3, softcap=0.5),
    AttentionOptions(0.3, sinks=torch.linspace(-2, 3, HEADS)),
    AttentionOptions(0.3, 5, 0.5, torch.linspace(-2, 3, HEADS)),
]


@pytest.mark.parametrize(
    "options",
    OPTIONS,
    ids=lambda options: f"window={options.window} softcap={options.softcap} sinks={options.sinks is not None}",
)
@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_chunks_and_decodes_equals_the_loops_and_reads_no_strangers_slot(seed, options):
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    sequences = [(dice.choice([1, 1, 1, 2, 7, 20]), dice.choice([0, 0, 1, 13, 30, 31])) for _ in range(9)]
    blocks = list(range(200))
    dice.shuffle(blocks)
    # NaN wherever nobody wrote: one read of it would show in the result.
    layer = LayerCache(*(torch.full((200, BLOCK, KV_HEADS, dim), float("nan")) for dim in (DIM, VALUE_DIM)))
    starts, contexts, slots, tables, histories = [0], [], [], [], []
    for count, past in sequences:
        table = tuple(blocks.pop() for _ in range(-(-(count + past) // BLOCK)))
        keys, values = (torch.randn(count + past, KV_HEADS, dim, generator=generator) for dim in (DIM, VALUE_DIM))
        for position in range(past):
            layer.keys[table[position // BLOCK], position % BLOCK] = keys[position]
            layer.values[table[position // BLOCK], position % BLOCK] = values[position]
        slots += [table[at // BLOCK] * BLOCK + at % BLOCK for at in range(past, past + count)]
        starts.append(starts[-1] + count)
        contexts.append(past + count)
        tables.append(table)
        histories.append((keys, values))
    queries = torch.randn(starts[-1], HEADS, DIM, generator=generator)
    kernels = TorchAttention(Layout(tuple(starts), tuple(contexts), torch.tensor(slots), tuple(tables), BLOCK))
    new = [torch.cat([history[which][-count:] for history, (count, _) in zip(histories, sequences, strict=True)])
           for which in range(2)]  # fmt: skip
    kernels.write_kv(layer, *new)
    found = kernels.paged_attention(layer, queries, options)
    for (count, past), (keys, values), start in zip(sequences, histories, starts, strict=False):
        for index in range(count):
            end = past + index + 1
            expected = naive(queries[start + index], keys[:end], values[:end], options)
            torch.testing.assert_close(found[start + index], expected)
