"""From arguments to an engine that is ready: device, data type, weights, cache, warm-up, in this order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from pagoda_engine.contract import EngineArgs, Progress, Stage
from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore, EngineInfo, Runner
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Scheduler, SchedulerConfig, Work
from pagoda_engine.errors import ModelUnsupported, OutOfMemory
from pagoda_engine.model import cache_size, rotary
from pagoda_engine.model.attention import LayerCache
from pagoda_engine.model.checkpoint import Checkpoint, checkpoint_dtype, model_class
from pagoda_engine.model.device import available_memory, cpu_threads, has_bfloat16, resolve_device
from pagoda_engine.model.fusion import fused_runner
from pagoda_engine.model.kv_cache import LayerShape, allocate, stored_as
from pagoda_engine.model.loader import load
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.model.parallel.ranks import Ranks
from pagoda_engine.model.parallel.runner import ParallelRunner
from pagoda_engine.model.probe import probe
from pagoda_engine.model.runner import ModelRunner
from pagoda_engine.model.torch_attention import TorchAttention
from pagoda_engine.sampling_params import SamplingParams
from pagoda_engine.source import resolve

if TYPE_CHECKING:
    from pagoda_engine.model.gpu.start import CudaRunners

_CPU_WARM_UP: Final = 64  # tokens: on a CPU, first calls cost no more with more of them

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Built:
    """What every rank has of a warm engine."""

    runner: Runner
    limits: SchedulerConfig
    info: EngineInfo
    late_compiles: Callable[[], int]

    @property
    def plain(self) -> ModelRunner:
        """The runner that can work in step with other ranks. Raises TypeError where it is another."""
        if not isinstance(self.runner, ModelRunner):
            raise TypeError(f"{type(self.runner).__name__} can't work in step with other ranks")
        return self.runner


def build_engine(args: EngineArgs, on_progress: OnProgress, ranks: Ranks | None = None) -> EngineCore:
    """Load `args.model`, which must be on this machine, and make an engine of it.

    `on_progress` hears of each stage, last of READY. `ranks` are the others of `args.tensor_parallel_size`, where they
    were started already. Raises the errors of `pagoda_engine.errors`: ModelNotFound, ModelCorrupt, ModelUnsupported,
    OutOfMemory, DeviceNotFound; EngineDied where another rank ended.
    """
    if args.tensor_parallel_size == 1:
        built = build_runner(args, on_progress, Group.alone())
        runner = built.runner
    else:
        ranks = ranks or Ranks(args)
        built, runner = _build_on_all(args, on_progress, ranks)
    blocks = BlockPool(built.info.num_blocks, built.info.block_size)
    scheduler = Scheduler(built.limits, blocks)
    engine = EngineCore(scheduler, runner, built.info, args.seed, late_compiles=built.late_compiles)
    on_progress(Progress(Stage.READY))
    return engine


def _build_on_all(args: EngineArgs, on_progress: OnProgress, ranks: Ranks) -> tuple[Built, Runner]:
    def report(progress: Progress) -> None:
        if progress.stage is Stage.LOADING and progress.percent is not None:
            progress = replace(progress, percent=ranks.slowest(progress.percent))
        on_progress(progress)

    group = Group(0, ranks.size, ranks.folder, ranks.meet)
    ranks.abort = group.abort
    try:
        with ranks.watched():
            built = build_runner(args, report, group)
    except BaseException:
        ranks.close()
        raise
    return built, ParallelRunner(built.plain, ranks)


def build_runner(args: EngineArgs, on_progress: OnProgress, group: Group) -> Built:
    """This rank's part of the model, warm. Every rank of `group` runs this at the same time, step by step."""
    on_progress(Progress(Stage.LOADING, 0.0))
    device = resolve_device(args.device, group.rank, group.size)
    if device.type == "cpu":
        torch.set_num_threads(max(1, cpu_threads() // group.size))
    checkpoint = Checkpoint.at(Path(resolve(args.model, args.download_dir)))
    config = checkpoint.config()
    model_class(config)  # a kind of model that can't run is the first thing to say of it
    max_model_len = _max_model_len(args, config)

    def on_percent(percent: float) -> None:
        on_progress(Progress(Stage.LOADING, percent))

    model = load(
        checkpoint,
        config,
        dtype=_dtype(args, checkpoint, config, device),
        device=device,
        dummy=args.load_format == "dummy",
        on_percent=on_percent,
        group=group,
    )
    group.join(device, on_percent)

    rotary.settle(model, max_model_len)

    on_progress(Progress(Stage.WARMING))
    limits = _limits(args, max_model_len)
    shapes = stored_as(probe(model, max_model_len), args.kv_cache_dtype, device)
    cuda = _cuda_runners(model, limits, args.block_size, group) if device.type == "cuda" else None
    blocks = cache_size.num_blocks(
        _cache_bytes(args, device, shapes, cuda, group.size),
        args.block_size * sum(shape.bytes for shape in shapes),
        args.block_size,
        max_model_len,
        limits.max_num_seqs,
    )
    blocks = group.least(blocks)
    fused = None
    # The fused runner's kernels know no other rank, and keep the cache in the type that they compute in.
    if group.size == 1 and args.kv_cache_dtype == "auto":
        fused = fused_runner(
            model, limits, blocks, args.block_size, lambda text: on_progress(Progress(Stage.WARMING, message=text))
        )
    if cuda:
        runner = cuda.make(_allocate(shapes, blocks, args.block_size, device))
        cuda.warm_up(runner)
    else:
        runner = fused or _runner(model, _allocate(shapes, blocks, args.block_size, device), args.block_size, group)
        _warm_up(runner, limits, args.block_size)
    del model
    info = EngineInfo(
        max_model_len=max_model_len,
        vocab_size=config.vocab_size,
        eos_token_ids=checkpoint.eos_token_ids(config),
        num_blocks=blocks,
        block_size=args.block_size,
    )
    return Built(runner, limits, info, cuda.late_compiles if cuda else lambda: 0)


def _max_model_len(args: EngineArgs, config: PreTrainedConfig) -> int:
    """The longest sequence: the asked one, or the model's. Raises ModelUnsupported where the model's is shorter."""
    own = getattr(config, "max_position_embeddings", None)
    if args.max_model_len is None and own is None:
        raise ModelUnsupported("the model's config does not say how long its sequences may be; set --max-model-len")
    if own is not None and args.max_model_len is not None and args.max_model_len > own:
        raise ModelUnsupported(
            f"--max-model-len is {args.max_model_len}, and the model was made for {own}; use {own} or less"
        )
    return int(args.max_model_len or own or 0)


def _dtype(args: EngineArgs, checkpoint: Checkpoint, config: PreTrainedConfig, device: torch.device) -> torch.dtype:
    """The asked data type; by `auto` the checkpoint's, and for a GGUF bfloat16 where the hardware computes with it."""
    if args.dtype != "auto":
        dtype: torch.dtype = getattr(torch, args.dtype)
        return dtype
    if checkpoint.gguf_name:
        return torch.bfloat16 if has_bfloat16(device) else torch.float32 if device.type == "cpu" else torch.float16
    return checkpoint_dtype(config) or torch.float32


def _limits(args: EngineArgs, max_model_len: int) -> SchedulerConfig:
    budget = args.max_num_batched_tokens
    return SchedulerConfig(
        max_num_seqs=min(args.max_num_seqs, budget),
        max_num_batched_tokens=budget,
        # Beside decoders a prompt gets a quarter of a step's tokens: their streams slow down, and never stop.
        max_prefill_tokens=max(1, budget // 4),
        max_model_len=max_model_len,
        long_prefill_token_threshold=args.long_prefill_token_threshold,
        priority=args.scheduling_policy == "priority",
        prefix_caching=args.enable_prefix_caching,
    )


def _runner(model: PreTrainedModel, layers: tuple[LayerCache, ...], block_size: int, group: Group) -> ModelRunner:
    return ModelRunner(model, layers, block_size, TorchAttention, overlaps=False, group=group)


def _cuda_runners(model: PreTrainedModel, limits: SchedulerConfig, block_size: int, group: Group) -> CudaRunners:
    from pagoda_engine.model.gpu.start import CudaRunners  # with Triton, which not every machine has

    return CudaRunners(model, limits, block_size, group)


def _allocate(
    shapes: tuple[LayerShape, ...], num_blocks: int, block_size: int, device: torch.device
) -> tuple[LayerCache, ...]:
    try:
        return allocate(shapes, num_blocks, block_size, device)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        raise OutOfMemory(
            f"a KV cache of {num_blocks} blocks can't be allocated on {device}; lower --kv-cache-memory-bytes or "
            f"--gpu-memory-utilization ({error})"
        ) from error


def _cache_bytes(
    args: EngineArgs, device: torch.device, shapes: tuple[LayerShape, ...], cuda: CudaRunners | None, ranks: int
) -> int:
    """Bytes for this rank's cache: the asked ones, or what the device can spare."""
    if args.kv_cache_memory_bytes is not None:
        return args.kv_cache_memory_bytes
    if cuda is None:
        return cache_size.cpu_cache_bytes(available_memory() // ranks)
    return cuda.spare_bytes(
        args.gpu_memory_utilization, lambda blocks: _allocate(shapes, blocks, args.block_size, device)
    )


def _warm_up(runner: Runner, limits: SchedulerConfig, block_size: int) -> None:
    """Run a short prompt and a single sequence on the CPU, so that no request pays for what happens only once.

    The works write to real blocks that nobody holds yet, and whose contents nobody will read.
    """
    length = min(_CPU_WARM_UP, limits.max_num_batched_tokens, limits.max_model_len)
    prompt = _rehearsal(length, list(range(-(-length // block_size))))
    runner.launch([Work(prompt, 0, length, samples=True)]).samples()
    runner.launch([Work(_rehearsal(1, [0]), 0, 1, samples=True)]).samples()


def _rehearsal(length: int, blocks: list[int]) -> Request:
    request = Request("warm-up", [0] * length, SamplingParams(temperature=1.0), frozenset(), time.monotonic())
    request.blocks = blocks
    return request
