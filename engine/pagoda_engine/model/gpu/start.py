"""Runners on a CUDA device: which kind a model gets, how they are warmed, and what memory they leave."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import torch
from transformers import PreTrainedModel

from pagoda_engine.core.engine import Runner
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import SchedulerConfig, Work
from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.kernels.triton.compiles import CompileCount
from pagoda_engine.model.attention import KernelsForStep, LayerCache
from pagoda_engine.model.cache_size import gpu_cache_bytes
from pagoda_engine.model.fused.recognise import NotRecognised, recognise
from pagoda_engine.model.gpu.execution import CudaGraphs, Execution, Plain, graph_sizes
from pagoda_engine.model.gpu.runner import GpuRunner, Limits
from pagoda_engine.model.gpu.weights import Weights, take_over
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.model.runner import ModelRunner
from pagoda_engine.model.torch_attention import TorchAttention
from pagoda_engine.model.triton_attention import TritonAttention
from pagoda_engine.sampling_params import SamplingParams

_LOG: Final = logging.getLogger(__name__)
_WIDEST_HEAD: Final = 256  # features of a head in Triton's tiles
_DTYPES: Final = (torch.bfloat16, torch.float16, torch.float32)

# What takes the most memory: every filter of a draw, and logits edited beforehand.
_DRAWN: Final = SamplingParams(temperature=1.0, top_k=50, top_p=0.9, min_p=0.01)
_EDITED: Final = SamplingParams(temperature=1.0, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.1, logprobs=5)


class CudaRunners:
    """Makes the runners of one model on one CUDA device, or on the CPU where Triton interprets its kernels.

    A decoder of the common shape runs on our kernels and in CUDA graphs; its weights are taken over, and `model` is
    empty afterwards. Any other one, and each rank's of a `group` of several, runs on transformers' layers with our
    attention.
    """

    def __init__(self, model: PreTrainedModel, limits: SchedulerConfig, block_size: int, group: Group) -> None:
        self._device = model.device
        self._limits = limits
        self._block_size = block_size
        self._compiles = CompileCount()
        self._group = group
        self._weights = _weights(model, limits.max_model_len) if group.size == 1 else None
        self._model = model if self._weights is None else None

    def make(self, cache: tuple[LayerCache, ...]) -> Runner:
        """A runner over a cache, not yet warm."""
        if self._weights is None:
            kernels = self._kernels(self._model, cache)
            return ModelRunner(self._model, cache, self._block_size, kernels, overlaps=True, group=self._group)
        limits = self._limits
        room = Limits(
            tokens=limits.max_num_batched_tokens,
            sequences=limits.max_num_seqs,
            rows=limits.max_num_seqs + limits.max_scored_tokens,
            context=limits.max_model_len,
            sizes=graph_sizes(limits.max_num_seqs),
        )
        execution: Execution = CudaGraphs(self._device) if self._device.type == "cuda" else Plain()
        return GpuRunner(self._weights, cache, self._block_size, room, execution)

    def rehearsal_blocks(self) -> int:
        """Blocks that a cache must have for `rehearse` and `warm_up`."""
        return -(-self._longest // self._block_size) + 1

    def rehearse(self, runner: Runner) -> None:
        """The largest steps alone, for the memory that they take."""
        if isinstance(runner, GpuRunner):
            runner.prepare((self._limits.max_num_seqs,))
        self._prompt(runner, self._longest)
        self._decoders(runner, self._limits.max_num_seqs, _DRAWN)
        self._decoders(runner, self._limits.max_num_seqs, _EDITED)

    def warm_up(self, runner: Runner) -> None:
        """All that happens only once, so that no request pays for it: kernels, graphs, prompts of many lengths.

        The works write to real blocks that nobody holds yet, and whose contents nobody will read.
        """
        if isinstance(runner, GpuRunner):
            runner.prepare()
        length = self._longest
        while length > 1:
            self._prompt(runner, length)
            length //= 2
        for count in (1, self._limits.max_num_seqs):
            self._decoders(runner, count, _DRAWN)
            self._decoders(runner, count, _EDITED)
        self._decoders_beside_a_prompt(runner)
        self._compiles.mark_ready()

    def late_compiles(self) -> int:
        """Kernels that were compiled since `warm_up`: each one is a stall, and there should be none."""
        return self._compiles.late

    def spare_bytes(self, utilization: float, allocate: Callable[[int], tuple[LayerCache, ...]]) -> int:
        """Bytes left for a cache within `utilization` of the device's memory, beside the most that steps take.

        `allocate` makes a cache of so many blocks. What the device holds beyond torch's memory (a context, modules,
        other processes) is counted after the steps, which load modules.
        """
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        cache = allocate(self.rehearsal_blocks())
        held = sum(part.nbytes for layer in cache for part in (layer.keys, layer.values))
        runner = self.make(cache)
        self.rehearse(runner)
        torch.cuda.synchronize(self._device)
        peak = torch.cuda.max_memory_reserved(self._device) - held
        del cache, runner
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self._device)
        others = total - free - torch.cuda.memory_reserved(self._device)
        return gpu_cache_bytes(total, utilization, others, peak)

    def _kernels(self, model: PreTrainedModel, cache: tuple[LayerCache, ...]) -> KernelsForStep:
        """Triton's, for heads of the sizes that they have tiles for on this device; torch's otherwise."""
        widest = max(part.shape[-1] for layer in cache for part in (layer.keys, layer.values))
        chip, heads = Chip.of(self._device), model.config.get_text_config().num_attention_heads // self._group.size
        if widest > _WIDEST_HEAD or any(_lacking(chip, heads, layer) for layer in cache):
            return TorchAttention
        return partial(TritonAttention, chip=chip)

    @property
    def _longest(self) -> int:
        return min(self._limits.max_num_batched_tokens, self._limits.max_model_len)

    def _prompt(self, runner: Runner, length: int) -> None:
        _finish(runner, [Work(self._request(length), 0, length, samples=True)])

    def _decoders(self, runner: Runner, count: int, params: SamplingParams) -> None:
        _finish(runner, [Work(self._request(1, params), 0, 1, samples=True) for _ in range(count)])

    def _decoders_beside_a_prompt(self, runner: Runner) -> None:
        """In one step, a decoder and a piece of a prompt that samples nothing; then nothing but such a piece."""
        length = self._longest - 1
        if length < 2:
            return
        piece = Work(self._request(self._longest), 0, length, samples=False)
        if self._limits.max_num_seqs > 1:
            _finish(runner, [Work(self._request(1), 0, 1, samples=True), piece])
        _finish(runner, [piece])

    def _request(self, length: int, params: SamplingParams = _DRAWN) -> Request:
        request = Request("warm-up", [0] * length, params, frozenset(), time.monotonic())
        request.blocks = list(range(-(-length // self._block_size)))
        return request


def _weights(model: PreTrainedModel, max_model_len: int) -> Weights | None:
    name = type(model).__name__
    if model.dtype not in _DTYPES:
        return None
    try:
        decoder = recognise(model, max_model_len)
        if decoder.layers[0].dim > _WIDEST_HEAD:
            raise NotRecognised(
                f"its heads have {decoder.layers[0].dim} features, and kernels tiles for {_WIDEST_HEAD}"
            )
        first, chip = decoder.layers[0], Chip.of(model.device)
        if lacking := chip.lacks(first.heads // first.kv_heads, first.dim, first.dim, model.dtype.itemsize):
            raise NotRecognised(lacking)
        return take_over(decoder)
    except NotRecognised as error:
        _LOG.warning("%s runs on transformers' own layers, which is slower: %s", name, error)
        return None


def _lacking(chip: Chip, heads: int, layer: LayerCache) -> str | None:
    *_, kv_heads, dim = layer.keys.shape
    return chip.lacks(max(1, heads // kv_heads), dim, layer.values.shape[-1], layer.keys.itemsize)


def _finish(runner: Runner, works: Sequence[Work]) -> None:
    runner.launch(works).samples()
