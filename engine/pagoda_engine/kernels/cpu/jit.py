"""The decorator of every kernel, and the place where its machine code is kept.

A loop that is to be vectorised runs over a slice from 0: Numba lets an index count from the end, so with `x[at + j]`
LLVM sees a choice at each element and gives up (a softmax takes 7 times as long).

Numba notices a change of a kernel's own file, not of the files it calls, so the folder is named by a hash of all of
them and of what compiles them. The target (`target`) is in Numba's own keys.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-untyped-call, no-any-unimported"
# Numba and llvmlite are untyped.
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import llvmlite
import numba
from numba.core import event

from pagoda_engine.kernels.cpu import target

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])

# All of fast-math but the promises that no number is NaN or infinite: those must reach the sampler, which reports them.
_ORDER_IS_FREE: Final = {"reassoc", "contract", "nsz", "arcp", "afn"}

INSTALLED: Final = Path(sys.prefix, "share", "pagoda", "machine-code")
"""The code of this installation: made once for all who share it, or when an image is built."""


def may_write(folder: Path) -> bool:
    """Whether this process may write files to a folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def cache_folder(
    environment: Mapping[str, str], installed: Path = INSTALLED, may_write: Callable[[Path], bool] = may_write
) -> Path:
    """Where machine code is kept: with the installation, or, where that can't be written, with its user.

    That is below ${XDG_CACHE_HOME:-~/.cache}/pagoda or in a temporary folder, and begins with the installation's code:
    Numba knows one folder, and must be able to write there.
    """
    name = _version()
    if may_write(installed):
        return installed / name
    home = Path(environment.get("HOME") or tempfile.gettempdir())
    caches = [Path(environment.get("XDG_CACHE_HOME") or home / ".cache"), home / ".cache"]
    own = Path(tempfile.gettempdir(), f"pagoda-{os.getuid()}")
    folder = next(filter(may_write, (cache / "pagoda" / "machine-code" for cache in caches)), own)
    if (installed / name).exists():
        _copy(installed / name, folder / name)
    return folder / name


def _version() -> str:
    """A name that changes with whatever changes the code, but the target."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    sources.update(f"{numba.__version__} {llvmlite.__version__} {platform.python_version()}".encode())
    return sources.hexdigest()[:16]


def _copy(source: Path, folder: Path) -> None:
    """Make the folder if it is missing, whole or not at all: others may start at the same time."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as own:
        copy = shutil.copytree(source, Path(own, "copy"))
        try:
            copy.rename(folder)
        except OSError:
            if not folder.exists():
                raise


_FOLDER: Final = cache_folder(os.environ)
if numba.config.CPU_NAME is None and (_best := target.best()):
    target.select(_best)


def kernel(function: _Kernel) -> _Kernel:
    """Compile `function` on its first call, or load its machine code; it runs without the GIL."""
    return _compiled(function, _ORDER_IS_FREE)


def loose_kernel(function: _Kernel) -> _Kernel:
    """A kernel of loops with minima and maxima, which are vectorised only if no number needs to be taken for a NaN.

    A NaN that goes in still comes out: of such a row, or of the residual stream that it came from.
    """
    return _compiled(function, True)


def prepare(function: Callable[..., Any], *args: Any) -> None:
    """Load the machine code of a kernel for such arguments, or make it; the kernel is not run."""
    function.compile(tuple(map(numba.typeof, args)))  # type: ignore[attr-defined]


@contextmanager
def hearing(tell: Callable[[int], None]) -> Iterator[None]:
    """In this context, `tell(n)` is called before the n-th kernel that is compiled because no code of it was found."""
    with event.install_listener("numba:compile", _Counter(tell)):
        yield


class _Counter(event.Listener):
    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._count = 0

    def on_start(self, compiling: event.Event) -> None:
        if compiling.data["dispatcher"].py_func.__module__.startswith(__name__.rpartition(".")[0]):
            self._count += 1
            self._tell(self._count)

    def on_end(self, _compiling: event.Event) -> None:
        """Of no interest: a kernel that is made of others ends after them."""


def _compiled(function: _Kernel, fast: set[str] | bool) -> _Kernel:
    # Numba reads the folder here and now, so other users of Numba in this process keep theirs.
    asked = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = asked or str(_FOLDER)
    try:
        compiled: _Kernel = numba.njit(cache=True, nogil=True, fastmath=fast, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = asked
    return compiled
