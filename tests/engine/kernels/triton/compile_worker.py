"""Compiles Triton kernels for GPUs that are not there: a list of jobs as JSON on stdin, a list of results on stdout.

A process of its own, because in the tests' process the kernels were made for Triton's interpreter. Jobs run one after
the other, so that memory stays small.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

_USED = re.compile(r"Used (\d+) registers")
_SPILLED = re.compile(r"(\d+) bytes spill stores")


def compiled(job: dict[str, Any], capability: int) -> dict[str, Any]:
    kernel = getattr(importlib.import_module(job["module"]), job["kernel"])
    source = ASTSource(
        kernel,
        {**job["signature"], **dict.fromkeys(job["constants"], "constexpr")},
        job["constants"],
        {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in job["aligned"]},
    )
    result = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=job["options"])
    ptx = result.asm["ptx"]
    return {
        "kernel": job["kernel"],
        "capability": capability,
        "shared": result.metadata.shared,
        **_resources(ptx, capability),
        "ptx": ptx if job["ptx"] else "",
    }


def _resources(ptx: str, capability: int) -> dict[str, int]:
    """Registers of a thread and bytes that spill out of them, as Triton's own assembler says."""
    assembler = get_ptxas(capability).path
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "kernel.ptx")
        text.write_text(ptx)
        architecture = f"sm_{capability}{'a' if capability == 90 else ''}"
        command = [assembler, "-v", f"--gpu-name={architecture}", str(text), "-o", str(text.with_suffix(".o"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {
        "registers": max(int(number) for number in _USED.findall(said)),
        "spilled": max(int(number) for number in _SPILLED.findall(said)),
    }


if __name__ == "__main__":
    jobs = json.load(sys.stdin)
    json.dump([compiled(job, capability) for job in jobs for capability in job["capabilities"]], sys.stdout)
