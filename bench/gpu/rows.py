"""What the check finds: rows, each a number with its unit and, where there is one, what was to be reached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. `least` or `most` is the target; a row without `value` says in `note` what went wrong."""

    section: str
    name: str
    value: float | None
    unit: str
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`ok` or `short` where there is a target, `failed` where there is no number."""
        if self.value is None:
            return "failed"
        if self.least is None and self.most is None:
            return ""
        reached = (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)
        return "ok" if reached else "short"

    def document(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "verdict": self.verdict}


Emit = Callable[[Row], None]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device gives at best, measured: bytes a second of a copy (read and written), and of bfloat16 products

    floating-point operations a second. None where that could not be measured.
    """

    copy: float | None = None
    matmul: float | None = None

    def percent_of_copy(self, bytes_a_second: float) -> float | None:
        return None if self.copy is None else 100 * bytes_a_second / self.copy

    def percent_of_matmul(self, operations_a_second: float) -> float | None:
        return None if self.matmul is None else 100 * operations_a_second / self.matmul


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is: as on a GPU, or so tiny that a CPU runs the same code in seconds."""

    device: torch.device
    tiny: bool
    ceilings: Ceilings
    started: float
    """`time.time()` when the section's process was started."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.tiny else torch.bfloat16


def table(rows: Iterable[Row]) -> str:
    """The rows as text, in columns."""
    lines = []
    for row in rows:
        value = "-" if row.value is None else f"{row.value:,.1f}" if abs(row.value) >= 10 else f"{row.value:.3g}"
        target = "" if row.least is None else f">= {row.least:g}"
        target = target if row.most is None else f"<= {row.most:g}"
        lines.append((row.section, row.name, value, row.unit, target, row.verdict, row.note))
    head = ("section", "what", "value", "unit", "target", "", "note")
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in [head, *lines]
    )
