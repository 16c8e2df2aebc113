"""The torch kernels against attention written out as loops over tokens."""

import random

import pytest
import torch

from pagoda_engine.model.attention import LayerCache, Layout
from pagoda_engine.model.torch_attention import TorchAttention

HEADS, KV_HEADS, DIM, BLOCK = 6, 2, 8, 4


def naive(query, keys, values, scale, window):
    """One query [heads, dim], the last token of keys and values [tokens, kv_heads, dim]."""
    first = 0 if window is None else max(0, len(keys) - window)
    rows = []
    for head in range(HEADS):
        kv_head = head // (HEADS // KV_HEADS)
        scores = torch.stack([query[head] @ key[kv_head] * scale for key in keys[first:]])
        rows.append(scores.softmax(0) @ values[first:, kv_head])
    return torch.stack(rows)


@pytest.mark.parametrize("window", [None, 1, 5, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_chunks_and_decodes_equals_the_loops_and_reads_no_strangers_slot(seed, window):
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    sequences = [(dice.choice([1, 1, 1, 2, 7, 20]), dice.choice([0, 0, 1, 13, 30, 31])) for _ in range(9)]
    blocks = list(range(200))
    dice.shuffle(blocks)
    # NaN wherever nobody wrote: one read of it would show in the result.
    layer = LayerCache(*(torch.full((200, BLOCK, KV_HEADS, DIM), float("nan")) for _ in range(2)))
    starts, contexts, slots, tables, histories = [0], [], [], [], []
    for count, past in sequences:
        table = tuple(blocks.pop() for _ in range(-(-(count + past) // BLOCK)))
        keys, values = torch.randn(2, count + past, KV_HEADS, DIM, generator=generator)
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
    found = kernels.paged_attention(layer, queries, 0.3, window)
    for (count, past), (keys, values), start in zip(sequences, histories, starts, strict=False):
        for index in range(count):
            end = past + index + 1
            expected = naive(queries[start + index], keys[:end], values[:end], 0.3, window)
            torch.testing.assert_close(found[start + index], expected)
