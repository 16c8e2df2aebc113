"""What the device can do at best: the measure of everything else."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from bench.gpu.rows import Ceilings, Emit, Row, Scale
from bench.gpu.shapes import LLAMA_8B, TINY
from bench.gpu.timing import seconds

SECTION = "ceilings"


def run(scale: Scale, emit: Emit) -> None:
    copied = _copy(scale)
    emit(Row(SECTION, "copy, read and written", copied / 1e9, "GB/s"))
    emit(Row(SECTION, "matrix product", _product(scale) / 1e12, "TFLOP/s"))
    _layers(replace(scale, ceilings=Ceilings(copy=copied)), emit)


def _copy(scale: Scale) -> float:
    """Bytes a second."""
    count = 1 << (16 if scale.tiny else 30)
    source = torch.randn(count >> 4, device=scale.device).to(scale.dtype).repeat(16)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), scale.device)


def _product(scale: Scale) -> float:
    """Operations a second."""
    size = 128 if scale.tiny else 8192
    a, b = (torch.randn(size, size, device=scale.device).to(scale.dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, scale.device)


def _layers(scale: Scale, emit: Emit) -> None:
    """A decode step's linear layers by themselves, as torch does them: most of what a step can't be faster than."""
    shape = TINY if scale.tiny else LLAMA_8B
    sizes = {
        "qkv": (shape.dim * (shape.heads + 2 * shape.kv_heads), shape.hidden),
        "output": (shape.hidden, shape.dim * shape.heads),
        "gate and up": (2 * shape.inner, shape.hidden),
        "down": (shape.hidden, shape.inner),
    }
    for tokens in (1, 64):
        for name, (outputs, inputs) in sizes.items():
            weight = torch.randn(outputs, inputs, device=scale.device).to(scale.dtype)
            x = torch.randn(tokens, inputs, device=scale.device).to(scale.dtype)
            took = seconds(lambda x=x, weight=weight: F.linear(x, weight), scale.device)
            percent = scale.ceilings.percent_of_copy(weight.nbytes / took)
            emit(Row(SECTION, f"{name} of {tokens}, of copy bandwidth", percent, "%", note=f"{took * 1e6:.1f} us"))
