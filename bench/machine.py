"""On what, and of what, a result was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

_PACKAGES: Final = ("pagoda-serving", "torch", "transformers", "numba", "tokenizers")
_FEATURES: Final = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def facts() -> dict[str, Any]:
    """Processor, cores that may be used, memory in bytes, and the versions of what was running."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in info.partition("\n\n")[0].splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    features = named.get("flags", named.get("Features", "")).split()
    return {
        "cpu": named.get("model name", platform.machine()),
        "cpu_features": [feature for feature in _FEATURES if feature in features],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def commit(repository: Path) -> str:
    """The commit that was measured, with `+` where files differ from it; empty outside of a repository."""

    def git(*words: str) -> str:
        result = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=False)
        return result.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
