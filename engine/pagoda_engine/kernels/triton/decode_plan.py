"""Who computes what of a decode step's attention, decided on the device.

One query a sequence leaves a GPU idle unless long sequences are cut: 8 sequences on 8 KV heads are 64 programs for 132
multiprocessors, and one sequence of 100k tokens among short ones would be waited for by all. So a step's visible tokens
are cut into about as many equal items as keep all multiprocessors busy, whatever the lengths: an item is a range of one
sequence's tokens. That happens once a step, not once a layer, and never on the host: the number of items is fixed when
buffers are made, as a CUDA graph wants it, and those left over are empty.

FlashInfer's `plan` does the like on the host; SGLang's `get_num_kv_splits_triton` chooses the number of splits on the
device, and each program of the grid finds out whether it is one of them.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
# Triton is untyped, and types inside a kernel are Triton's.
# ruff: noqa: ANN001, ANN202
from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from pagoda_engine.kernels.triton.chip import Chip

FIELDS: Final = 5  # sequence (or -1), first token, end of tokens, first item of the sequence, items of the sequence

_LEAST_TOKENS: Final = 128  # an item of fewer tokens takes longer to start and to merge than to read
_PROGRAMS: Final = 4  # on each multiprocessor: two run at a time, and twice as many even out what they meet
_ITEMS: Final = 64
_SEQUENCES: Final = 128


@dataclass(frozen=True, slots=True, eq=False)
class DecodePlan:
    """A step's items, for up to so many sequences, and every layer with one window.

    `items` is int32 [FIELDS, items]; `cuts` is how many items the step's tokens are spread over.
    """

    items: Tensor
    cuts: int

    @classmethod
    def allocate(cls, sequences: int, kv_heads: int, chip: Chip, device: torch.device) -> DecodePlan:
        """An empty plan. It holds an item for each sequence and those that the cutting adds."""
        cuts = -(-chip.processors * _PROGRAMS // kv_heads)
        return cls(torch.full((FIELDS, sequences + cuts), -1, dtype=torch.int32, device=device), cuts)

    def fill(self, contexts: Tensor, *, starts: Tensor | None = None, window: int | None = None) -> None:
        """Cut the step's tokens into items; one launch, whatever the number of sequences.

        contexts: int32 [sequences], tokens in the cache. Without `starts` each sequence has one query, and one with a
        context of 0 is padding: it gets an item without tokens, and so zeros for output. With `starts`, int32
        [sequences + 1], a sequence that has one query, `starts[i + 1] - starts[i] == 1`, gets items, others get none.
        """
        count = self.items.shape[1]
        _plan[(triton.cdiv(count, _ITEMS),)](
            self.items, contexts, starts, len(contexts), window, self.cuts, count,
            LEAST=_LEAST_TOKENS, ITEMS=_ITEMS, SEQUENCES=_SEQUENCES, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip


@triton.jit(
    do_not_specialize=["sequences", "cuts", "items"],
    do_not_specialize_on_alignment=["plan", "contexts", "starts"],
)
def _plan(
    plan,
    contexts,
    starts,
    sequences,
    window,
    cuts,
    items,
    LEAST: tl.constexpr,  # noqa: N803 - Triton's habit for what is known when compiling
    ITEMS: tl.constexpr,  # noqa: N803
    SEQUENCES: tl.constexpr,  # noqa: N803
):
    """Each program repeats the sums over all sequences, which lie in the cache, and writes `ITEMS` items."""
    total = tl.zeros([], tl.int64)
    for at in range(0, sequences, SEQUENCES):
        length, single = _lengths(contexts, starts, at + tl.arange(0, SEQUENCES), sequences, window)
        total += tl.sum(tl.where(single, length, 0).to(tl.int64))
    # A whole number of `LEAST`, so that full tiles are the rule.
    size = (tl.maximum(tl.cdiv(total, cuts), 1) + LEAST - 1) // LEAST * LEAST
    size = size.to(tl.int32)

    item = tl.program_id(0) * ITEMS + tl.arange(0, ITEMS)
    owner = tl.full([ITEMS], -1, tl.int32)
    first = tl.zeros([ITEMS], tl.int32)
    count = tl.zeros([ITEMS], tl.int32)
    taken = tl.zeros([], tl.int32)
    for at in range(0, sequences, SEQUENCES):
        index = at + tl.arange(0, SEQUENCES)
        length, single = _lengths(contexts, starts, index, sequences, window)
        cut = tl.where(single, tl.maximum(tl.cdiv(length, size), 1), 0)
        end = taken + tl.cumsum(cut, 0)
        mine = (item[:, None] >= (end - cut)[None, :]) & (item[:, None] < end[None, :])
        owner += tl.sum(tl.where(mine, (index + 1)[None, :], 0), 1)
        first += tl.sum(tl.where(mine, (end - cut)[None, :], 0), 1)
        count += tl.sum(tl.where(mine, cut[None, :], 0), 1)
        taken += tl.sum(cut)

    owned = owner >= 0
    context = tl.load(contexts + owner, mask=owned, other=0)
    low = context * 0 if window is None else tl.maximum(context - window, 0)
    # Even shares rather than whole ones and a rest. None is empty: a share is no larger than `size`.
    share = tl.cdiv(context - low, tl.maximum(count, 1))
    share = (share + LEAST - 1) // LEAST * LEAST
    start = low + (item - first) * share
    real = item < items
    tl.store(plan + item, owner, mask=real)
    tl.store(plan + items + item, start, mask=real)
    tl.store(plan + 2 * items + item, tl.minimum(start + share, context), mask=real)
    tl.store(plan + 3 * items + item, first, mask=real)
    tl.store(plan + 4 * items + item, count, mask=real)


@triton.jit
def _lengths(contexts, starts, index, sequences, window):
    """Visible tokens of some sequences, and whether each is there and has one query."""
    there = index < sequences
    length = tl.load(contexts + index, mask=there, other=0)
    if window is not None:
        length = tl.minimum(length, window)
    if starts is not None:
        queries = tl.load(starts + index + 1, mask=there, other=0) - tl.load(starts + index, mask=there, other=0)
        there = there & (queries == 1)
    return length, there
