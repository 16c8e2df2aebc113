"""Keys and values into the paged cache: one program a token."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
# Triton is untyped, and types inside a kernel are Triton's.
# ruff: noqa: ANN001, ANN202, N803 - Triton's habit: what is known when compiling is in capitals
import triton
import triton.language as tl
from torch import Tensor

from pagoda_engine.kernels.paged import LayerCache


def write_kv(layer: LayerCache, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Write keys [tokens, kv_heads, dim] and values [tokens, kv_heads, value_dim] to their slots, int64 [tokens].

    A slot is a block's index times the block size plus an offset; a token whose slot is negative is padding and
    skipped. The last dimension of every tensor is contiguous. In a float8 cache, numbers too large become the largest.
    """
    _, block, kv_heads, dim = layer.keys.shape
    value_dim = layer.values.shape[-1]
    _write[(len(slots),)](
        keys, values, slots, layer.keys, layer.values, layer.key_scale, layer.value_scale,
        keys.stride(0), keys.stride(1), values.stride(0), values.stride(1),
        *layer.keys.stride()[:3], *layer.values.stride()[:3],
        BLOCK=block, HEADS=kv_heads, DIM=dim, VALUE_DIM=value_dim, ALL_HEADS=triton.next_power_of_2(kv_heads),
        COLUMNS=triton.next_power_of_2(dim), VALUE_COLUMNS=triton.next_power_of_2(value_dim), num_warps=4,
        enable_fp_fusion=True,
    )  # fmt: skip


@triton.jit(do_not_specialize_on_alignment=["slots"])
def _write(
    keys, values, slots, key_cache, value_cache, key_scale, value_scale,
    keys_row, keys_head, values_row, values_head,
    key_block, key_token, key_head, value_block, value_token, value_head,
    BLOCK: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr, ALL_HEADS: tl.constexpr,
    COLUMNS: tl.constexpr, VALUE_COLUMNS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    if slot < 0:
        return
    block, offset = slot // BLOCK, slot % BLOCK
    _copy(
        keys + token * keys_row, keys_head, key_cache + block * key_block + offset * key_token, key_head, key_scale,
        HEADS, DIM, ALL_HEADS, COLUMNS,
    )  # fmt: skip
    _copy(
        values + token * values_row, values_head, value_cache + block * value_block + offset * value_token, value_head,
        value_scale, HEADS, VALUE_DIM, ALL_HEADS, VALUE_COLUMNS,
    )  # fmt: skip


@triton.jit
def _copy(
    source, source_head, target, target_head, scales,
    HEADS: tl.constexpr, DIM: tl.constexpr, ALL_HEADS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One token's [heads, dim]."""
    head = tl.arange(0, ALL_HEADS)
    column = tl.arange(0, COLUMNS)
    real = (head < HEADS)[:, None] & (column < DIM)[None, :]
    content = tl.load(source + head[:, None] * source_head + column[None, :], mask=real)
    if scales is not None:
        content = content.to(tl.float32) / tl.load(scales + head, mask=head < HEADS, other=1.0)[:, None]
        # The conversion saturates on a GPU; NaN stays NaN.
        content = tl.clamp(content, -448.0, 448.0, tl.PropagateNan.ALL)
    tl.store(target + head[:, None] * target_head + column[None, :], content.to(target.dtype.element_ty), mask=real)
