"""Whether a model runs on kernels of our own, and if not, why; said once, at the start."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import torch
from transformers import PreTrainedModel

from pagoda_engine.core.scheduler import SchedulerConfig
from pagoda_engine.model.device import cpu_threads

if TYPE_CHECKING:
    from pagoda_engine.model.fused.runner import FusedRunner

_LOG: Final = logging.getLogger(__name__)
_BLOCK: Final = 16
_DTYPES: Final = (torch.bfloat16, torch.float32)


def fused_runner(
    model: PreTrainedModel,
    limits: SchedulerConfig,
    num_blocks: int,
    block_size: int,
    on_compile: Callable[[str], None],
) -> FusedRunner | None:
    """A runner that has taken the model's weights over, or None: then the model is as it was.

    `on_compile` hears how far kernels are compiled, if they must be.
    """
    if model.device.type != "cpu":
        return None
    if reason := _obstacle(model, block_size):
        _LOG.warning("the model runs on transformers' own layers, which is slower on this CPU: %s", reason)
        return None
    from pagoda_engine.kernels.cpu.jit import hearing
    from pagoda_engine.kernels.cpu.step import KERNELS
    from pagoda_engine.model.fused.recognise import NotRecognised, recognise
    from pagoda_engine.model.fused.room import Limits
    from pagoda_engine.model.fused.runner import FusedRunner

    try:
        decoder = recognise(model, limits.max_model_len)
    except NotRecognised as error:
        name = type(model).__name__
        _LOG.warning("%s runs on transformers' own layers, which is slower on this CPU: %s", name, error)
        return None
    room = Limits(
        tokens=limits.max_num_batched_tokens,
        sequences=limits.max_num_seqs,
        context=limits.max_model_len,
        scored=limits.max_scored_tokens,
        blocks=num_blocks,
    )
    runner = FusedRunner(decoder, room, cpu_threads())
    _give_memory_back()
    with hearing(lambda number: on_compile(f"compiling kernels {number}/{KERNELS}, this once")):
        runner.prepare()
    return runner


def _give_memory_back() -> None:
    """Return freed weights to the system: glibc keeps blocks below 32 MiB, which most layers' matrices are."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _obstacle(model: PreTrainedModel, block_size: int) -> str | None:
    """What stands in the way of the kernels, as a sentence with the fix."""
    if block_size != _BLOCK:
        return f"--block-size is {block_size}, and the kernels work on blocks of {_BLOCK}"
    if model.dtype not in _DTYPES:
        return f"--dtype is {str(model.dtype).removeprefix('torch.')}, and the kernels compute bfloat16 and float32"
    try:
        from pagoda_engine.kernels.cpu.target import best
    except ImportError as error:
        return f"Numba can't be imported ({error}); install the project's extra `engine`"
    if best() is None:
        return "the kernels are for x86-64 with AVX2 and FMA, which this processor does not have"
    return None
