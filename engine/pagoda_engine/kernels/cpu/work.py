"""How threads share a step: phase after phase, each thread takes the next piece of a phase from a counter.

A phase is over when all of its pieces are done, whoever did them: a thread whose core was lent to another process
delays nobody, and finds its way through the finished phases when it is back. So an engine slows down, but does not
stall, where several share a few cores.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pagoda_engine.kernels.cpu.atomics import fetch_add, pause, publish, read, yield_core
from pagoda_engine.kernels.cpu.jit import kernel, prepare

Shared = NDArray[np.int64]
"""A gate, and for each phase two counters, of pieces taken and pieces done, in a cache line of their own."""

_LINE: Final = 8
_GATE: Final = 0  # threads that have entered; with _CLOSED added, nobody may enter any more
_LEFT: Final = 8  # threads that have left
_PHASES: Final = 16
_CLOSED: Final = 1 << 32
_SPINS: Final = 500  # about ten microseconds, then the core is offered to others


def shared(phases: int) -> Shared:
    """The words by which one team shares steps of at most so many phases."""
    words = np.zeros(_PHASES + phases * _LINE, dtype=np.int64)
    words[_GATE] = _CLOSED
    return words


@kernel
def take(words: Shared, phase: int) -> int:
    """The number of the next piece of this phase, counted from 0; the caller knows how many there are."""
    return fetch_add(words, _PHASES + phase * _LINE, 1)


@kernel
def take_next(words: Shared, phase: int) -> int:
    """Say that the piece taken before is done, and take another."""
    fetch_add(words, _PHASES + phase * _LINE + 1, 1)
    return fetch_add(words, _PHASES + phase * _LINE, 1)


@kernel
def finish(words: Shared, phase: int, pieces: int) -> int:
    """Wait until all pieces of the phase are done. Returns the number of the next phase."""
    spins = 0
    while read(words, _PHASES + phase * _LINE + 1) < pieces:
        spins += 1
        if spins < _SPINS:
            pause()
        else:
            yield_core()
    return phase + 1


def open_step(words: Shared) -> None:
    """Let threads in. Nobody is inside."""
    words[_LEFT:] = 0
    _open(words)


@kernel
def enter(words: Shared) -> bool:
    """Take part in the step that is open, if one is. Who enters must leave."""
    return fetch_add(words, _GATE, 1) < _CLOSED


@kernel
def leave(words: Shared) -> None:
    fetch_add(words, _LEFT, 1)


@kernel
def close_step(words: Shared) -> None:
    """Let nobody in any more, and wait until all have left."""
    inside = fetch_add(words, _GATE, _CLOSED)
    while read(words, _LEFT) < inside:
        yield_core()


def prepare_gates(words: Shared) -> None:
    """Load the machine code of what lets threads in and out, or make it."""
    for gate in (_open, enter, leave, close_step):
        prepare(gate, words)


@kernel
def _open(words: Shared) -> None:
    publish(words, _GATE, 0)
