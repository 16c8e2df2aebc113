"""The attention kernels beside torch's: flash attention, cuDNN's, and flex_attention, on contiguous keys and values.

Ours read a paged cache with scattered blocks; theirs are given the best case that they have.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from bench.gpu.rows import Emit, Row, Scale
from bench.gpu.timing import seconds
from pagoda_engine.kernels.paged import AttentionOptions, LayerCache
from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.kernels.triton.decode_attention import DecodeSpace, decode
from pagoda_engine.kernels.triton.decode_plan import DecodePlan
from pagoda_engine.kernels.triton.prefill_attention import prefill

SECTION = "attention"

_BLOCK = 16
_HEADS, _KV_HEADS, _DIM = 32, 8, 128


def run(scale: Scale, emit: Emit) -> None:
    for batch, context in [(2, 32)] if scale.tiny else [(1, 8192), (8, 2048), (64, 2048), (256, 1024)]:
        _decode(scale, emit, batch, context)
    for batch, tokens in [(1, 32)] if scale.tiny else [(1, 8192), (4, 2048)]:
        _prefill(scale, emit, batch, tokens)


def _shape(scale: Scale) -> tuple[int, int, int]:
    return (4, 2, 16) if scale.tiny else (_HEADS, _KV_HEADS, _DIM)


def _decode(scale: Scale, emit: Emit, batch: int, context: int) -> None:
    heads, kv_heads, dim = _shape(scale)
    what = f"decode {batch} x {context}"
    queries = torch.randn(batch, heads, dim, device=scale.device).to(scale.dtype)
    keys, values, layer, tables = _cache(scale, batch, context)
    contexts = torch.full((batch,), context, dtype=torch.int32, device=scale.device)
    chip = _chip(scale)
    plan = DecodePlan.allocate(batch, kv_heads, chip, scale.device)
    plan.fill(contexts)
    space, out = DecodeSpace.allocate(plan, heads, dim), torch.empty_like(queries)
    options = AttentionOptions(dim**-0.5)

    def ours() -> Tensor:
        decode(queries, layer, tables, plan, space, out, options)
        return out

    def theirs() -> Tensor:
        return F.scaled_dot_product_attention(queries[:, :, None], keys, values, enable_gqa=True)[:, :, 0]

    _compare(emit, what, ours(), theirs())
    read = keys.nbytes + values.nbytes
    took = seconds(ours, scale.device)
    emit(Row(SECTION, what, took * 1e6, "us"))
    emit(Row(SECTION, f"{what}, of copy bandwidth", scale.ceilings.percent_of_copy(read / took), "%", least=70))
    _rivals(scale, emit, what, took, theirs)


def _prefill(scale: Scale, emit: Emit, batch: int, tokens: int) -> None:
    heads, _, dim = _shape(scale)
    what = f"prefill {batch} x {tokens}"
    queries = torch.randn(batch, heads, tokens, dim, device=scale.device).to(scale.dtype)
    keys, values, layer, tables = _cache(scale, batch, tokens)
    flat = queries.transpose(1, 2).flatten(0, 1).contiguous()
    out = torch.empty_like(flat)
    starts = torch.arange(0, (batch + 1) * tokens, tokens, dtype=torch.int32, device=scale.device)
    contexts = torch.full((batch,), tokens, dtype=torch.int32, device=scale.device)
    options = AttentionOptions(dim**-0.5)

    def ours() -> Tensor:
        prefill(flat, layer, tables, starts, contexts, out, options)
        return out

    def theirs() -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)

    _compare(emit, what, ours(), theirs().transpose(1, 2).flatten(0, 1))
    operations = 4 * batch * heads * dim * tokens * (tokens + 1) / 2
    took = seconds(ours, scale.device)
    emit(Row(SECTION, what, took * 1e6, "us"))
    emit(Row(SECTION, f"{what}, of matmul peak", scale.ceilings.percent_of_matmul(operations / took), "%"))
    _rivals(scale, emit, what, took, theirs)
    if not scale.tiny:
        mask = create_block_mask(_causal, None, None, tokens, tokens, device=scale.device)
        compiled = torch.compile(flex_attention)
        _rival(
            scale,
            emit,
            f"{what}, flex",
            took,
            lambda: compiled(queries, keys, values, block_mask=mask, enable_gqa=True),
        )


def _causal(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key


def _rivals(scale: Scale, emit: Emit, what: str, ours: float, run: Callable[[], Tensor]) -> None:
    backends = [SDPBackend.MATH] if scale.tiny else [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    for backend in backends:

        def one(backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return run()

        _rival(scale, emit, f"{what}, torch {backend.name.lower()}", ours, one)


def _rival(scale: Scale, emit: Emit, what: str, ours: float, run: Callable[[], Tensor]) -> None:
    """A rival that does not run on this device is a row that says so, not the end of the section."""
    try:
        took = seconds(run, scale.device)
    except Exception as error:  # whatever a library raises where it has no kernel
        emit(Row(SECTION, f"{what}: its time by ours", None, "x", note=f"{type(error).__name__}: {str(error)[:200]}"))
        return
    emit(Row(SECTION, f"{what}: its time by ours", took / ours, "x"))


def _compare(emit: Emit, what: str, found: Tensor, wanted: Tensor) -> None:
    error = (found.float() - wanted.float()).abs().max().item()
    emit(Row(SECTION, f"{what}: largest difference from torch", error, "", most=0.03))


def _chip(scale: Scale) -> Chip:
    return Chip.of(scale.device) if scale.device.type == "cuda" else Chip(2)


def _cache(scale: Scale, batch: int, context: int) -> tuple[Tensor, Tensor, LayerCache, Tensor]:
    """Keys and values [batch, kv_heads, context, dim], and the same in scattered blocks with their tables."""
    _, kv_heads, dim = _shape(scale)
    keys, values = (torch.randn(batch, kv_heads, context, dim, device=scale.device).to(scale.dtype) for _ in range(2))
    width = -(-context // _BLOCK)
    order = torch.randperm(batch * width, device=scale.device)
    layer = LayerCache(*(_paged(part, order, width) for part in (keys, values)))
    return keys, values, layer, order.view(batch, width).int()


def _paged(part: Tensor, order: Tensor, width: int) -> Tensor:
    batch, kv_heads, context, dim = part.shape
    padded = F.pad(part, (0, 0, 0, width * _BLOCK - context)).view(batch, kv_heads, width, _BLOCK, dim)
    blocks = torch.empty(len(order), _BLOCK, kv_heads, dim, dtype=part.dtype, device=part.device)
    blocks[order] = padded.permute(0, 2, 3, 1, 4).flatten(0, 1)
    return blocks
