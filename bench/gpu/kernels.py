"""Every kernel against its twin, by the very tests that run in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from bench.gpu.rows import Emit, Row, Scale

SECTION = "kernels"

_TESTS = Path(__file__).parents[2] / "tests" / "engine" / "kernels" / "triton"
_SUMMARY = re.compile(r"(\d+) (passed|failed|error)")


def run(scale: Scale, emit: Emit) -> None:
    # The project's own settings want plugins that a machine with a GPU may not have.
    command = [sys.executable, "-m", "pytest", str(_TESTS), "-q", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default"]
    command += ["-k", "swiglu"] if scale.tiny else ["-k", "not compile"]
    environment = {**os.environ, "TRITON_INTERPRET": "1" if scale.tiny else "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    counts = {word: int(number) for number, word in _SUMMARY.findall(done.stdout)}
    failed = counts.get("failed", 0) + counts.get("error", 0) + (done.returncode != 0 and "passed" not in counts)
    last = "" if done.returncode == 0 else " | ".join((done.stdout + done.stderr).strip().splitlines()[-6:])[-600:]
    emit(Row(SECTION, "tests that a twin passes", float(counts.get("passed", 0)), "tests", least=1))
    emit(Row(SECTION, "tests that fail", float(failed), "tests", most=0, note=last))
