"""Pages of libraries that only a start needed, given back to the system.

Loading torch and compiling kernels touches some 300 MiB of libraries of which serving needs a tenth: tables of symbols,
CUDA's libraries on a machine without a GPU, LLVM. Such pages are copies of files, and nothing is lost with them: what
is needed again is mapped again, from the page cache, in less than a microsecond.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SMAPS: Final = Path("/proc/self/smaps")
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)")
_DONTNEED: Final = 4  # Linux' MADV_DONTNEED


@dataclass(slots=True)
class _Mapping:
    start: int
    stop: int
    permissions: str
    inode: int
    resident: int = 0
    """KiB."""
    own: int = 0
    """KiB that are no copies of the file, since this process wrote them: relocations, for one."""

    @property
    def is_library(self) -> bool:
        return self.inode != 0 and self.permissions[1] == "-" and self.permissions[3] == "p"


def give_back() -> int:
    """Let go of what other memory would push out anyway. Returns bytes; 0 on systems without Linux' /proc."""
    if not _SMAPS.exists():
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    given = 0
    for mapping in list(_mappings(_SMAPS.read_text())):
        # Read-only and never written is what makes this safe: pages of one's own would be zeroed or read anew.
        if mapping.is_library and mapping.own == 0 and mapping.resident:
            refused = madvise(mapping.start, mapping.stop - mapping.start, _DONTNEED)
            given += 0 if refused else mapping.resident << 10
    return given


def _mappings(smaps: str) -> Iterator[_Mapping]:
    """proc(5): a line for each mapping, then lines `Name: number kB`."""
    mapping: _Mapping | None = None
    for line in smaps.splitlines():
        if match := _MAPPING.match(line):
            if mapping:
                yield mapping
            start, stop, permissions, inode = match.groups()
            mapping = _Mapping(int(start, 16), int(stop, 16), permissions, int(inode))
        elif mapping and line.startswith("Rss:"):
            mapping.resident = int(line.split()[1])
        elif mapping and line.startswith("Anonymous:"):
            mapping.own = int(line.split()[1])
    if mapping:
        yield mapping
