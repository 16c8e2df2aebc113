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
    """A level: LLVM's name of a CPU, and the features beyond it. `machines` are names of `platform.machine()`.

    LLVM's x86-64-v3 and v4 are those of the x86-64 psABI; a v4 machine would rather use half registers, unless told.
    """

    name: str
    machines: frozenset[str]
    cpu: str
    features: tuple[str, ...]
    tuning: str = ""

    @property
    def flags(self) -> str:
        """Features as LLVM reads them."""
        return ",".join([*(f"+{feature}" for feature in self.features), *filter(None, [self.tuning])])


_X86: Final = frozenset({"x86_64", "amd64"})
_ARM: Final = frozenset({"aarch64", "arm64"})
_V3: Final = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4: Final = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")

TARGETS: Final = (
    Target("x86-64-v4-bf16", _X86, "x86-64-v4", (*_V4, "avx512bf16"), "-prefer-256-bit"),
    Target("x86-64-v4", _X86, "x86-64-v4", _V4, "-prefer-256-bit"),
    Target("x86-64-v3", _X86, "x86-64-v3", _V3),
    Target("aarch64", _ARM, "generic", ("neon",)),
)
"""The best first."""


def best(machine: str | None = None, features: Mapping[str, bool] | None = None) -> Target | None:
    """The best target that runs here (or on the machine described), or None where the kernels have no code."""
    machine = (platform.machine() if machine is None else machine).lower()
    features = llvm.get_host_cpu_features() if features is None else features
    for target in TARGETS:
        if machine in target.machines and all(features.get(feature) for feature in target.features):
            return target
    return None


def select(target: Target) -> None:
    """Make this process's machine code for `target`. To be called before Numba has compiled anything: it asks once."""
    numba.config.CPU_NAME = target.cpu
    numba.config.CPU_FEATURES = target.flags


def has(context: Any, feature: str) -> bool:
    """Whether code that is being made in a Numba target context may use a feature, as LLVM calls it."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


def is_x86(context: Any) -> bool:
    """Whether it is made for x86."""
    return str(context.codegen().magic_tuple()[0]).startswith("x86_64")
