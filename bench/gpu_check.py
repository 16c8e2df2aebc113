"""What a GPU makes of this engine, in one command: `python -m bench.gpu_check`. A table, and a document with all of it.

    --dry-run      the same code on the CPU, tiny: to see that it works, not how fast
    --only NAME    some of the sections
    --output FILE  where the document goes; default bench/results/gpu-<device>-<date>.json

Each section is a process with a time of its own, so that one that fails, hangs or breaks the device is a line of the
table and the others still run. Exits 1 where a section failed, and 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from bench.gpu.rows import Ceilings, Row, Scale, table
from bench.machine import commit

_REPOSITORY: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Section:
    """A function `run(scale, emit)`, as module and name, and the seconds that it may take."""

    name: str
    module: str
    function: str
    seconds: float


SECTIONS: Final = (
    Section("ceilings", "bench.gpu.ceilings", "run", 35),
    Section("equality", "bench.gpu.equality", "run", 60),
    Section("8B", "bench.gpu.engine", "run_8b", 110),
    Section("0.6B", "bench.gpu.engine", "run_600m", 60),
    Section("serving", "bench.gpu.serving", "run", 90),
    Section("kernels", "bench.gpu.kernels", "run", 60),
    Section("attention", "bench.gpu.attention", "run", 60),
)
"""What matters most comes first; together less than eight minutes."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--only", nargs="+", choices=[section.name for section in SECTIONS], help="sections to run")
    parser.add_argument("--output", type=Path, help="where the document goes")
    parser.add_argument("--commit", help="what is measured, where that is no git repository")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # a section's own process: its job as JSON
    options = parser.parse_args(argv)
    if options.inside:
        return _inside(json.loads(options.inside))
    if not options.dry_run and not torch.cuda.is_available():
        print(
            "no GPU here: torch sees no CUDA device (--dry-run runs the same code, tiny, on the CPU)", file=sys.stderr
        )
        return 2
    chosen = [section for section in SECTIONS if not options.only or section.name in options.only]
    began = time.monotonic()
    facts = _facts(options.dry_run, options.commit)
    path = options.output or _default_output(facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for section in chosen:
        print(f"{section.name} ...", file=sys.stderr, flush=True)
        found = run_section(section, options.dry_run, _ceilings(rows))
        print(f"{table(found)}\n", flush=True)
        rows += found
        # After each section, so that whoever ends this early keeps what there is.
        seconds = round(time.monotonic() - began, 1)
        path.write_text(json.dumps({**facts, "seconds": seconds, "rows": [row.document() for row in rows]}, indent=1))
    print(f"{facts['device']}, {time.monotonic() - began:.0f} s; written to {path}")
    return 1 if any(row.verdict == "failed" for row in rows) else 0


def run_section(section: Section, tiny: bool, ceilings: Ceilings) -> list[Row]:
    """A section's rows, and one more where it did not end well."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "rows")
        found.touch()
        job = {
            **asdict(section),
            "tiny": tiny,
            "ceilings": asdict(ceilings),
            "started": time.time(),
            "rows": str(found),
        }
        command = [sys.executable, "-m", "bench.gpu_check", "--inside", json.dumps(job)]
        problem = _problem(command, _environment(tiny), section.seconds)
        rows = [Row(**json.loads(line)) for line in found.read_text().splitlines()]
    if problem:
        print(problem, file=sys.stderr, flush=True)
        rows.append(Row(section.name, "the section", None, "", note=" ".join(problem.split())[-400:]))
    return rows


def _problem(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> str:
    """Run a section; what went wrong, or nothing. What does not end in time is ended, with all that it has started."""
    process = subprocess.Popen(
        command, env=environment, cwd=_REPOSITORY, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        return f"not done after {seconds:.0f} s: {said.strip()[-1000:]}"
    except BaseException:  # Ctrl-C: the process has a group of its own, and would go on
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return (said.strip()[-1500:] or f"exit code {process.returncode}") if process.returncode else ""


def _inside(job: dict[str, Any]) -> int:
    """In a section's process: run it, and write each row as soon as it is there."""
    device = torch.device("cpu") if job["tiny"] else torch.device("cuda", torch.cuda.current_device())
    scale = Scale(device, job["tiny"], Ceilings(**job["ceilings"]), job["started"])
    with open(job["rows"], "a", buffering=1) as file:
        run = getattr(importlib.import_module(job["module"]), job["function"])
        try:
            run(scale, lambda row: file.write(json.dumps(asdict(row)) + "\n"))
        except Exception:
            traceback.print_exc()
            return 1
    return 0


def _environment(tiny: bool) -> dict[str, str]:
    paths = [str(_REPOSITORY), str(_REPOSITORY / "engine"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TRITON_INTERPRET": "1" if tiny else "0",
        "HF_HUB_OFFLINE": "1",
    }


def _ceilings(rows: Sequence[Row]) -> Ceilings:
    found = {row.unit: row.value for row in rows if row.section == "ceilings" and row.value is not None}
    copy, matmul = found.get("GB/s"), found.get("TFLOP/s")
    return Ceilings(copy and copy * 1e9, matmul and matmul * 1e12)


def _facts(tiny: bool, named: str | None) -> dict[str, object]:
    import transformers
    import triton

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": named or (commit(_REPOSITORY) if shutil.which("git") else ""),
        "device": "CPU, a dry run" if tiny else torch.cuda.get_device_name(),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "triton": triton.__version__,
            "transformers": transformers.__version__,
        },
    }


def _default_output(facts: Mapping[str, object]) -> Path:
    device = re.sub(r"[^a-z0-9]+", "-", str(facts["device"]).lower()).strip("-")
    return _REPOSITORY / "bench" / "results" / f"gpu-{device}-{str(facts['date'])[:10]}.json"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
