"""Compiles what launches of the attention kernels ask for, for GPUs that are not there.

Cases as JSON on stdin, what became of them as JSON on stdout. A process of its own, because in the tests' process the
kernels were made for Triton's interpreter. The launches are the real ones, over small tensors in main memory, so that
types, constants and alignments are those of an engine; Triton's hook before a compilation compiles, and launches
nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from pagoda_engine.kernels.paged import AttentionOptions, LayerCache
from pagoda_engine.kernels.triton.chip import Chip
from pagoda_engine.kernels.triton.decode_attention import DecodeSpace, decode
from pagoda_engine.kernels.triton.decode_plan import DecodePlan
from pagoda_engine.kernels.triton.kv_write import write_kv
from pagoda_engine.kernels.triton.prefill_attention import prefill

_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")


@dataclass
class AbsentDevice:
    """What Triton asks of a driver before it compiles. A device's number is its compute capability, times ten."""

    capability: int

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiler:
    """Triton's `jit_cache_hook`: compiles, keeps what it learns, and says that there is nothing left to launch."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def __call__(self, *, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        target = triton.runtime.driver.active.get_current_target()
        source = ASTSource(fn.jit_function, compile["signature"], compile["constants"], compile["configs"][0])
        names = ("num_warps", "num_stages", "num_ctas", "enable_fp_fusion")
        options = make_backend(target).parse_options({name: compile[name] for name in names})
        kernel = triton.compile(source, target=target, options=vars(options))
        ptx = kernel.asm["ptx"]
        registers, stack = _usage(kernel.asm["cubin"])
        self.found.append(
            {
                "kernel": fn.name,
                "capability": target.arch,
                "registers": registers,
                "stack": stack,
                "shared": kernel.metadata.shared,
                "warp_group_products": ptx.count("wgmma.mma_async"),
                "warp_products": ptx.count("mma.sync"),
                "wide_copies": len(re.findall(r"cp\.async\.cg[^;]*, 0x10", ptx)),
                "order": re.findall(r"st\.global|bar\.sync|atom\.global\S*", ptx),
            }
        )
        return True


def _usage(cubin: bytes) -> list[int]:
    """Registers and bytes of stack of a thread: where there is a stack, registers did not suffice."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_TOOLS / "cuobjdump"), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = _USAGE.search(said)
    if match is None:
        raise ValueError(f"cuobjdump names no registers: {said}")
    return [int(number) for number in match.groups()]


def launch(case: dict[str, Any]) -> None:
    (heads, kv_heads), (dim, value_dim) = case["heads"], case["dims"]
    compute, stored = getattr(torch, case["dtype"]), getattr(torch, case["cache"])
    index = torch.zeros(8, dtype=torch.int32)
    scales = torch.ones(kv_heads) if stored == torch.float8_e4m3fn else None
    parts = [torch.zeros(2, 16, kv_heads, columns).to(stored) for columns in (dim, value_dim)]
    layer = LayerCache(*parts, key_scale=scales, value_scale=scales)
    sinks = torch.zeros(heads) if case["sinks"] else None
    options = AttentionOptions(dim**-0.5, case["window"], case["softcap"], sinks)
    queries, out = (torch.zeros(4, heads, columns, dtype=compute) for columns in (dim, value_dim))
    keys, values = (torch.zeros(4, kv_heads, columns, dtype=compute) for columns in (dim, value_dim))
    plan = DecodePlan.allocate(4, kv_heads, Chip(132), torch.device("cpu"))
    starts = index[:5] if case["mixed"] else None
    write_kv(layer, keys, values, torch.zeros(4, dtype=torch.int64))
    plan.fill(index[:4], starts=starts, window=case["window"])
    tables, space = index.view(4, 2), DecodeSpace.allocate(plan, heads, value_dim)
    decode(queries, layer, tables, plan, space, out, options, starts=starts)
    prefill(queries, layer, tables, index[:5], index[:4], out, options)


def main() -> None:
    compiler = Compiler()
    triton.knobs.runtime.jit_cache_hook = compiler
    results = []
    for case in json.load(sys.stdin):
        triton.runtime.driver.set_active(AbsentDevice(case["capability"]))
        launch(case)
        results.append(compiler.found)
        compiler.found = []
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
