"""How often Triton compiles: once an engine is ready, each time is a stall of a second for every request."""

from __future__ import annotations

from typing import Any

import triton


class CompileCount:
    """Counts the kernels that Triton makes in this process, compiled or read from its cache on disk.

    Triton has one place for such a hook; one that was there before is still called.
    """

    def __init__(self) -> None:
        self.made = 0
        self._ready = 0
        self._previous = triton.knobs.runtime.jit_post_compile_hook
        triton.knobs.runtime.jit_post_compile_hook = self._count

    def mark_ready(self) -> None:
        """What was made until now was expected."""
        self._ready = self.made

    @property
    def late(self) -> int:
        """Kernels made since `mark_ready`."""
        return self.made - self._ready

    def _count(self, **compiled: Any) -> Any:
        self.made += 1
        return self._previous(**compiled) if self._previous else None
