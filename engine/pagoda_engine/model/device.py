"""What this process may use of the machine: device, threads, memory, and the data type that runs well on it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import torch

from pagoda_engine.errors import DeviceNotFound

_CGROUP: Final = Path("/sys/fs/cgroup")


def resolve_device(name: str, rank: int = 0, size: int = 1) -> torch.device:
    """The device of rank `rank` of `size`; `auto` is the GPU if there is one.

    Raises DeviceNotFound where `cuda` is asked for and there is none, or where there are fewer than ranks.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceNotFound("--device cuda: this process sees no GPU; check the driver, or use --device cpu")
    if size == 1:
        return torch.device("cuda", torch.cuda.current_device())
    if torch.cuda.device_count() < size:
        raise DeviceNotFound(
            f"--tensor-parallel-size is {size}, and this process sees {torch.cuda.device_count()} GPUs; "
            "lower it, or give the process more"
        )
    # First of all: whatever asks CUDA for something before would take memory on GPU 0, in every rank.
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    return device


def cpu_threads(cgroup: Path = _CGROUP) -> int:
    """Threads that can run at the same time: the least of affinity mask, cgroup's CPU quota and OMP_NUM_THREADS."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    limits = [affinity, *([] if quota is None else [math.floor(quota)]), *([int(wanted)] if wanted.isdecimal() else [])]
    return max(1, min(limits))


def available_memory(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of main memory that can still be had: the machine's, or the cgroup's limit if that leaves less."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    machine = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or used is None:
        limit, used = _number(cgroup / "memory/memory.limit_in_bytes"), _number(cgroup / "memory/memory.usage_in_bytes")
    return machine if limit is None or used is None else max(0, min(machine, limit - used))


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are done in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs by the cgroup's quota, or None without one. Versions 2 and 1."""
    if (cgroup / "cpu.max").exists():
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _number(cgroup / "cpu/cpu.cfs_quota_us"), _number(cgroup / "cpu/cpu.cfs_period_us")
    return None if not quota_us or quota_us < 0 or not period_us else quota_us / period_us


def _number(path: Path) -> int | None:
    """The number in a cgroup file, or None where the file is missing or says `max`."""
    if not path.exists():
        return None
    text = path.read_text().strip()
    return None if text == "max" else int(text)
