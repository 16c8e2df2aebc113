"""The decorator of every kernel, and the place where its machine code is kept.

Numba notices a change of a kernel's own file, not of the files it calls, so the folder is named by a hash of all of
them and of what compiles them. The CPU's name and features are in Numba's own keys.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import llvmlite
import numba

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])

# All of fast-math but the promises that no number is NaN or infinite: those must reach the sampler, which reports them.
_ORDER_IS_FREE: Final = {"reassoc", "contract", "nsz", "arcp", "afn"}


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where machine code is kept: below ${XDG_CACHE_HOME:-~/.cache}/pagoda, or a temporary folder if that can't be."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    sources.update(f"{numba.__version__} {llvmlite.__version__} {platform.python_version()}".encode())
    name = Path("pagoda", "machine-code", sources.hexdigest()[:16])
    homes = [environment.get("XDG_CACHE_HOME"), str(Path(environment.get("HOME") or tempfile.gettempdir()) / ".cache")]
    for home in filter(None, homes):
        folder = Path(home) / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"pagoda-{os.getuid()}" / name


if not numba.config.CACHE_DIR:  # NUMBA_CACHE_DIR comes first; Numba looks when a function is decorated
    numba.config.CACHE_DIR = str(cache_folder(os.environ))


def kernel(function: _Kernel) -> _Kernel:
    """Compile `function` on its first call, or load its machine code; it runs without the GIL."""
    compiled: _Kernel = numba.njit(cache=True, nogil=True, fastmath=_ORDER_IS_FREE, error_model="numpy")(function)
    return compiled


def loose_kernel(function: _Kernel) -> _Kernel:
    """A kernel of loops with minima and maxima, which are vectorised only if no number needs to be taken for a NaN.

    A NaN that goes in still comes out: of such a row, or of the residual stream that it came from.
    """
    compiled: _Kernel = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(function)
    return compiled
