"""What is compiled, when, and what happens where nothing can be."""

import os
import subprocess
import sys

import pytest

from pagoda_engine.kernels.cpu.step import KERNELS

START = """
import sys, torch
from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work
from pagoda_engine.kernels.cpu.jit import hearing
from pagoda_engine.model.fused.precompile import smallest_runner
from pagoda_engine.sampling_params import SamplingParams

compiled = []
with hearing(compiled.append):
    runner = smallest_runner(torch.bfloat16)
    for length, temperature in ((3, 0.0), (1, 0.0), (1, 1.0)):
        request = Request("0", [1] * length, SamplingParams(temperature=temperature, top_k=3), frozenset(), 0.0)
        request.blocks = [0]
        sample, = runner.launch([Work(request, 0, length, samples=True)]).samples()
        assert sample.error is None
print(len(compiled))
"""

WITHOUT = """
import logging, sys
sys.modules["numba"] = None
logging.basicConfig()
import transformers
from pagoda_engine.contract import EngineArgs
from pagoda_engine.core.request import Request
from pagoda_engine.model.build import build_engine
from pagoda_engine.sampling_params import SamplingParams

engine = build_engine(EngineArgs(sys.argv[1], device="cpu", kv_cache_memory_bytes=1 << 20), lambda progress: None)
engine.add(Request("0", [5, 6], SamplingParams(temperature=0, max_tokens=3), frozenset(), 0.0))
while engine.has_work:
    for output in engine.step():
        print(*output.token_ids)
"""


def run(*argv, **environment):
    return subprocess.run(
        [sys.executable, *map(str, argv)], env={**os.environ, **environment}, text=True, capture_output=True, check=True
    )


@pytest.mark.timeout(600)
def test_what_was_compiled_ahead_for_a_processor_is_all_that_a_start_needs(tmp_path):
    """The first process compiles each kernel once; a second start, in a process of its own, compiles nothing."""
    from pagoda_engine.kernels.cpu.target import best

    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    ahead = run("-m", "pagoda_engine.model.fused.precompile", "--target", best().name, "--dtype=bfloat16", **folder)
    assert ahead.stdout == f"kernels for {best().name}, bfloat16\n"
    assert len(list(tmp_path.glob("*/*.nbi"))) == KERNELS
    assert run("-c", START, **folder).stdout == "0\n"


def test_without_numba_the_engine_says_so_and_runs_on_transformers_layers(tiny_model):
    ended = run("-c", WITHOUT, tiny_model("llama"))
    assert "Numba can't be imported" in ended.stderr
    assert len(ended.stdout.split()) == 3
