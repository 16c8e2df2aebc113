"""Compiling kernels for devices that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch


@dataclass(frozen=True)
class CompileJob:
    """One kernel with its arguments' types ("*bf16", "i32", "fp32", ...) and constants, for sm_80 and sm_90.

    `options` are num_warps and the like. Pointers count as aligned to 16 bytes, as torch's tensors are.
    """

    module: str
    kernel: str
    signature: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    capabilities: tuple[int, ...] = (80, 90)
    ptx: bool = False

    @property
    def aligned(self) -> list[str]:
        return [name for name, kind in self.signature.items() if kind.startswith("*")]


@dataclass(frozen=True)
class CompiledKernel:
    """What became of it: registers of a thread, bytes spilled from them, bytes of shared memory, PTX if asked for."""

    kernel: str
    capability: int
    registers: int
    spilled: int
    shared: int
    ptx: str


@pytest.fixture(autouse=True)
def _on_the_gpu_if_there_is_one() -> Iterator[None]:
    """Tensors are made on the GPU where kernels are compiled, on the CPU where they are interpreted."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    torch.set_default_device("cpu" if interpreted else "cuda")
    yield
    torch.set_default_device("cpu")


@pytest.fixture(scope="session")
def compile_job() -> type[CompileJob]:
    return CompileJob


@pytest.fixture(scope="session")
def compile_kernels() -> Callable[[Sequence[CompileJob]], list[CompiledKernel]]:
    """Compile in one process that is not Triton's interpreter; the test fails with what the compiler said."""

    def run(jobs: Sequence[CompileJob]) -> list[CompiledKernel]:
        text = json.dumps([{**asdict(job), "aligned": job.aligned} for job in jobs])
        worker = Path(__file__).with_name("compile_worker.py")
        environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, str(worker)], input=text, capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return [CompiledKernel(**result) for result in json.loads(done.stdout)]

    return run
