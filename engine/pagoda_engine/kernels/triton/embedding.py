"""The embeddings of a step's tokens, those among them that the device has sampled and nobody has read yet."""

from __future__ import annotations

# ruff: noqa: ANN001, ANN202, N803 - what a kernel takes is typed by Triton, and its constants are in capitals
# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

_BLOCK: Final = 1024


def embed(weight: Tensor, ids: Tensor, sources: Tensor, sampled: Tensor) -> Tensor:
    """Rows of `weight` [vocabulary, size]: of `ids`, or of `sampled[source]` where a token's source is not negative.

    All int64; `ids` and `sources` [tokens]. A sample of -1, which is no token, is read as 0. Returns [tokens, size].
    """
    tokens, size = len(ids), weight.shape[1]
    y = weight.new_empty(tokens, size)
    if tokens:
        _embed[(tokens, triton.cdiv(size, _BLOCK))](
            weight,
            ids,
            sources,
            sampled,
            y,
            SIZE=size,
            BLOCK=min(_BLOCK, triton.next_power_of_2(size)),
            num_warps=4,
            enable_fp_fusion=True,
        )
    return y


@triton.jit
def _embed(weight, ids, sources, sampled, y, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(sources + token)
    id_ = tl.load(ids + token)
    if source >= 0:
        id_ = tl.maximum(tl.load(sampled + source), 0)
    row = tl.load(weight + id_ * SIZE + columns, mask=columns < SIZE, other=0.0)
    tl.store(y + token * SIZE + columns, row, mask=columns < SIZE)
