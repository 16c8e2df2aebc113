"""The attention kernels compile for GPUs that are not there, and fit them.

The interpreter checks neither types nor the least shapes of matrix products, and knows no registers. Triton brings its
own assembler, so that all but running can be done here.
"""

import json
import os
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
import triton
from tests.pairwise import pairwise

from pagoda_engine.kernels.triton.chip import Chip, full_prefill_bytes

# Shared memory that one program may use: A100, Ada, H100.
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
GRID = {
    "capability": [90, 89, 80],
    "dims": [(128, 128), (64, 64), (80, 80), (256, 256)],
    "heads": [(8, 2), (4, 4), (64, 1)],
    "types": [("bfloat16", "bfloat16"), ("bfloat16", "float8_e4m3fn"), ("float32", "float32")],
    "window": [None, 128],
    "softcap": [None, 30.0],
    "sinks": [False, True],
    "mixed": [False, True],
}
# What decides the tiles, and with them the registers, in all combinations; the other parameters go round.
DECISIVE = {
    "capability": GRID["capability"],
    "dims": [*GRID["dims"], (96, 96), (192, 128)],
    "heads": [(8, 2), (64, 1)],
    "types": [*GRID["types"], ("float16", "float16")],
}
SPILLED = {80: 128, 89: 128, 90: 8}  # bytes a thread; tiles are made for Hopper, where 0 is usual
CROWDED = (64, 1)  # heads; beside them few registers are left for sinks, masks of padded columns, wide accumulators


def spelled(case):
    dtype, cache = case.pop("types")
    return {**case, "dtype": dtype, "cache": cache}


def possible(case):
    if Chip(1, SHARED[case["capability"]]).lacks(group(case), *case["dims"], getattr(torch, case["cache"]).itemsize):
        return False  # such a model runs on torch's attention
    return case["capability"] >= 89 or case["cache"] != "float8_e4m3fn"  # float8 came with Ada and Hopper


def group(case):
    heads, kv_heads = case["heads"]
    return heads // kv_heads


def spilled(case):
    """Bytes a thread that may not fit the registers."""
    usual, padded = SPILLED[case["capability"]], case["dims"][0] & (case["dims"][0] - 1)
    if case["heads"] != CROWDED:
        return usual
    if min(case["dims"]) > 128:
        return 256
    return max(usual, 128) if padded or case["sinks"] else usual


def told(worker, text=""):
    """What a script beside this one prints as JSON, in a process where Triton compiles."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(__file__).with_name(worker))]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def compiled(cases):
    """Kernels of each case: [(case, kernel), ...]."""
    if not (Path(triton.__file__).parent / "backends/nvidia/bin/ptxas").exists():
        pytest.skip("this build of Triton brings no assembler for NVIDIA GPUs")
    results = told("compile_launches.py", json.dumps(cases))
    return [(case, kernel) for case, kernels in zip(cases, results, strict=True) for kernel in kernels]


def check(found):
    for case, kernel in found:
        assert kernel["shared"] <= SHARED[case["capability"]], (case, kernel)
        if kernel["kernel"] == "_prefill" and case["cache"] == "float32":
            assert kernel["shared"] == full_prefill_bytes(group(case), *case["dims"]), (case, kernel)
        if kernel["kernel"] in ("_decode", "_prefill") and case["dtype"] != "float32":
            assert kernel["stack"] <= spilled(case), (case, kernel)
            assert kernel["wide_copies"], (case, kernel)
            assert kernel["warp_group_products"] or kernel["warp_products"], (case, kernel)
        if kernel["kernel"] == "_prefill" and case["capability"] == 90 and case["dtype"] != "float32":
            assert kernel["warp_group_products"], (case, kernel)
        if kernel["kernel"] == "_decode":
            order = kernel["order"]
            arrival = next(at for at, word in enumerate(order) if word.startswith("atom"))
            assert "acq_rel" in order[arrival], (case, kernel)
            assert "gpu" in order[arrival], (case, kernel)
            before = order[:arrival]
            last_store = max(at for at, word in enumerate(before) if word == "st.global")
            assert "bar.sync" in before[last_store:], "partial results must be there before the arrival is counted"


@pytest.mark.timeout(900)
def test_attention_compiles_for_three_generations_into_the_registers_and_memory_they_have():
    check(compiled([case for case in map(spelled, pairwise(**GRID)) if possible(case)]))


def test_steps_of_all_sizes_share_one_compiled_kernel_each():
    assert told("count_specialisations.py") == {"_write": 1, "_plan": 1, "_decode": 1, "_prefill": 1}


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dims", DECISIVE["dims"])
def test_the_whole_grid_compiles(dims):
    dice = random.Random(str(dims))
    others = {name: values for name, values in GRID.items() if name not in DECISIVE}
    cases = [
        spelled(
            dict(zip(DECISIVE, decisive, strict=True)) | {name: dice.choice(values) for name, values in others.items()}
        )
        for decisive in product(*(DECISIVE | {"dims": [dims]}).values())
    ]
    check(compiled([case for case in cases if possible(case)]))
