"""Kernels made for lesser processors, without a dot instruction for bfloat16 or with half as many registers."""

import subprocess
import sys
from pathlib import Path

import pytest

from pagoda_engine.kernels.cpu.target import TARGETS, best

HERE = Path(__file__).parent
LESSER = TARGETS[TARGETS.index(best()) + 1 :] if best() else ()


@pytest.mark.timeout(600)
@pytest.mark.skipif(not LESSER, reason="this processor is of the least kind that there are kernels for")
@pytest.mark.parametrize("target", [target.name for target in LESSER])
def test_all_kernels_equal_their_twins_on_a_lesser_processor(target):
    files = [HERE / f"test_{name}.py" for name in ("linear", "attention", "rows")]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--cpu-target={target}", *files],
        text=True,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
