"""Kubernetes quantities: `1500m`, `16Gi`, `2e3` (k8s.io/apimachinery/pkg/api/resource).

The API server gives back a canonical form of what it was sent. Writing that form in the first place keeps what is
desired equal to what is live.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Final

from pydantic import Field

_BINARY: Final = {f"{letter}i": 1024 ** (power + 1) for power, letter in enumerate("KMGTPE")}
_DECIMAL: Final = {
    **{letter: Fraction(1, 1000**power) for letter, power in (("n", 3), ("u", 2), ("m", 1))},
    "": Fraction(1),
    **{letter: Fraction(1000) ** (power + 1) for power, letter in enumerate("kMGTPE")},
}
_GRAMMAR: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d+))?")

QUANTITY_PATTERN: Final = (
    r"^[+]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$"
)
"""A quantity that is not negative; the API server's grammar, its minus sign left out."""

Quantity = Annotated[
    int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN})
]
"""The type of a quantity's field."""


@lru_cache(1024)
def parse(quantity: str | int) -> Fraction:
    """The exact value. Raises ValueError where it is not a quantity."""
    number, suffix, exponent = _parts(quantity)
    if exponent is not None:
        return number * Fraction(10) ** int(exponent)
    return number * (_BINARY[suffix] if suffix in _BINARY else _DECIMAL[suffix])


@lru_cache(1024)
def canonical(quantity: str | int) -> str:
    """The form that the API server gives back: a whole number, with the largest suffix of the same family that has one.

    A binary suffix needs a whole number of 1024 or more to stay binary (`512Mi` stays, `0.5Ki` is `512`); values below
    a nano round up to it, as upstream. Raises ValueError where it is not a quantity.
    """
    _, suffix, exponent = _parts(quantity)
    value = parse(quantity)
    if value == 0:
        return "0"
    if suffix in _BINARY and value.denominator == 1 and abs(value) >= 1024:
        for name, size in reversed(_BINARY.items()):
            if value % size == 0:
                return f"{value // size}{name}"
        return str(value)
    value = Fraction(math.ceil(value * 10**9), 10**9)
    for power in range(6, -4, -1):
        scaled = value / Fraction(1000) ** power
        if scaled.denominator == 1:
            break
    if exponent is not None:
        return f"{scaled}e{3 * power}" if power else str(scaled)
    return str(scaled) + ("numkMGTPE"[power + 3 - (power > 0)] if power else "")


def gib(number_of_bytes: int) -> str:
    """The least whole number of GiB that holds so many bytes."""
    return canonical(f"{max(1, -(-number_of_bytes // 2**30))}Gi")


def _parts(quantity: str | int) -> tuple[Fraction, str, str | None]:
    match = _GRAMMAR.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity; write a number and a suffix, such as 500m, 4 or 16Gi")
    number, suffix, exponent = match.groups()
    return Fraction(number), suffix or "", exponent
