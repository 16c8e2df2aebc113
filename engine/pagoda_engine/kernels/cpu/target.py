"""For which processors machine code is made: a few levels of instructions, so that machines can share it.

Numba compiles for the very CPU it runs on, whose code no other model of CPU finds in a cache. A level's code is found
by every machine that has its instructions: it can be made when an image is built.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped"
# Numba and llvmlite are untyped.
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import llvmlite.binding as llvm
import numba


@dataclass(frozen=True, slots=True)
class Target:
    """A level: LLVM's name of a CPU, one of the x86-64 psABI's levels, and features, some of them beyond it.

    For v4, LLVM would rather use half registers, unless it is told.
    """

    name: str
    cpu: str
    features: tuple[str, ...]
    tuning: str = ""

    @property
    def flags(self) -> str:
        """Features as LLVM reads them."""
        return ",".join([*(f"+{feature}" for feature in self.features), *filter(None, [self.tuning])])


_X86: Final = ("x86_64", "amd64")
_V3: Final = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4: Final = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")

TARGETS: Final = (
    Target("x86-64-v4-bf16", "x86-64-v4", (*_V4, "avx512bf16"), "-prefer-256-bit"),
    Target("x86-64-v4", "x86-64-v4", _V4, "-prefer-256-bit"),
    Target("x86-64-v3", "x86-64-v3", _V3),
)
"""The best first."""


def best(machine: str | None = None, features: Mapping[str, bool] | None = None) -> Target | None:
    """The best target that runs here (or on the machine described), or None where kernels can't or were never run."""
    machine = platform.machine() if machine is None else machine
    features = llvm.get_host_cpu_features() if features is None else features
    if machine.lower() not in _X86:
        return None
    return next((target for target in TARGETS if all(map(features.get, target.features))), None)


def select(target: Target) -> None:
    """Make this process's machine code for `target`. To be called before Numba has compiled anything: it asks once."""
    numba.config.CPU_NAME = target.cpu
    numba.config.CPU_FEATURES = target.flags


def has(context: Any, feature: str) -> bool:
    """Whether code that is being made in a Numba target context may use a feature, as LLVM calls it."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")
