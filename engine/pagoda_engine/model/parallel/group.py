"""What the ranks' tensors meet in: sums, gathered parts, the least of a number.

A process group of its own (gloo on CPUs, NCCL on GPUs), not torch's global one: several models can live in a process,
and whatever else uses torch.distributed there is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore, GatherOptions
from torch.nn import functional as F

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model.parallel.pieces import share
from pagoda_engine.model.parallel.wire import PeerLost

_TIMEOUT: Final = timedelta(seconds=120)
"""Far above any step. A rank that died is noticed at once; this is for one that hangs."""

OnPercent = Callable[[float], None]


class Group:
    """Rank `rank` of `size`. Alone, every operation does nothing.

    `meet` is called before the ranks join: it returns once all are there, so that nobody waits in vain for one that
    failed while it loaded.
    """

    def __init__(self, rank: int, size: int, folder: Path, meet: Callable[[OnPercent], None]) -> None:
        self.rank: Final = rank
        self.size: Final = size
        self._folder = folder
        self._meet = meet
        self._backend: Any = None
        self._device = torch.device("cpu")

    @classmethod
    def alone(cls) -> Group:
        return cls(0, 1, Path(), lambda _: None)

    def join(self, device: torch.device, on_percent: OnPercent) -> None:
        """Connect to the other ranks, which do the same. Until then no collective may be used."""
        if self.size == 1:
            return
        self._meet(on_percent)
        store = FileStore(str(self._folder / "rendezvous"), self.size)
        self._device = device
        self._backend = (_nccl if device.type == "cuda" else _gloo)(store, self.rank, self.size)

    def abort(self) -> None:
        """Wake whoever waits in a collective, from another thread. Sockets do that by themselves when a peer dies."""
        if self._device.type == "cuda" and self._backend is not None:
            self._backend.abort()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            self._wait(lambda backend: backend.allreduce([tensor]))
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's values in everybody's tensor, in place."""
        if self.size > 1:
            options = dist.BroadcastOptions()
            options.rootRank = 0
            self._wait(lambda backend: backend.broadcast([tensor], options))
        return tensor

    def all_gather(self, part: Tensor, width: int) -> Tensor:
        """All ranks' parts of a last dimension of `width`, of which each has its `share`, side by side."""
        if self.size == 1:
            return part
        widths = [stop - start for start, stop in (share(width, rank, self.size) for rank in range(self.size))]
        own, others = self._parts(part, max(widths), everywhere=True)
        self._wait(lambda backend: backend.allgather([others], [own]))
        return torch.cat([other[..., :each] for other, each in zip(others, widths, strict=True)], dim=-1)

    def gather(self, part: Tensor, width: int) -> Tensor:
        """On rank 0 all ranks' equal parts of a last dimension, side by side and cut to `width`; elsewhere `part`."""
        if self.size == 1:
            return part[..., :width]
        own, others = self._parts(part, part.shape[-1], everywhere=self.rank == 0)
        options = GatherOptions()
        options.rootRank = 0
        self._wait(lambda backend: backend.gather([others] if others else [], [own], options))
        return torch.cat(others, dim=-1)[..., :width] if others else part

    def least(self, number: int) -> int:
        """The smallest of all ranks' numbers."""
        if self.size == 1:
            return number
        tensor = torch.tensor([number], dtype=torch.int64, device=self._device)
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MIN
        self._wait(lambda backend: backend.allreduce([tensor], options))
        return int(tensor.item())

    def _parts(self, part: Tensor, width: int, *, everywhere: bool) -> tuple[Tensor, list[Tensor]]:
        """A part padded to `width`, and room for those of all ranks where they are wanted."""
        own = F.pad(part, (0, width - part.shape[-1])).contiguous()
        return own, [torch.empty_like(own) for _ in range(self.size)] if everywhere else []

    def _wait(self, start: Callable[[Any], Any]) -> None:
        if self._backend is None:
            raise RuntimeError("the ranks have not joined yet")
        try:
            start(self._backend).wait()
        except RuntimeError as error:
            raise PeerLost(f"rank {self.rank} of {self.size} got no answer from another: {error}") from error


def _gloo(store: FileStore, rank: int, size: int) -> Any:
    gloo: Any = dist.ProcessGroupGloo  # typed without the options that it is made with
    options = gloo._Options()
    options._timeout = _TIMEOUT
    # By default gloo listens on whatever address the machine's name stands for.
    options._devices = [gloo.create_device(hostname="127.0.0.1")]
    options._threads = 1
    return gloo(store, rank, size, options)


def _nccl(store: FileStore, rank: int, size: int) -> Any:
    if not dist.is_nccl_available():
        raise ModelUnsupported(
            "this build of torch has no NCCL, which --tensor-parallel-size above 1 needs on GPUs; install a CUDA build"
        )
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = _TIMEOUT
    return dist.ProcessGroupNCCL(store, rank, size, options)
