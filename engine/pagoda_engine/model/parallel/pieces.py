"""The part of a parameter that a rank holds, as numbers; and taking it from a whole tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_UNIT: Final = 8
"""Elements: 16 bytes of bfloat16, at which grouped matrix products want their rows to start."""


def share(width: int, rank: int, size: int) -> tuple[int, int]:
    """The rank's share of a dimension, start and stop; all shares together are the whole.

    Equal where that comes out even, as heads do; else as even as can be, in units that kernels like their rows to have.
    """
    unit = _UNIT if width % size and width % _UNIT == 0 else 1
    units = width // unit
    return units * rank // size * unit, units * (rank + 1) // size * unit


@dataclass(frozen=True, slots=True)
class Piece:
    """Of dimension `dim` (counted from the end, below 0) the given intervals, one after the other, then zeros.

    `width` is the dimension's extent on this rank; more than the intervals come to where the last rank's share is
    short, or where a bias is another rank's to add.
    """

    dim: int
    intervals: tuple[tuple[int, int], ...]
    width: int

    @classmethod
    def of(cls, dim: int, *intervals: tuple[int, int]) -> Piece:
        """Exactly these intervals."""
        return cls(dim, intervals, sum(stop - start for start, stop in intervals))

    @property
    def padded(self) -> int:
        """How many zeros follow the intervals."""
        return self.width - sum(stop - start for start, stop in self.intervals)

    def shape(self, whole: torch.Size) -> torch.Size:
        """The local shape of a parameter whose whole shape is given."""
        sizes = list(whole)
        sizes[self.dim] = self.width
        return torch.Size(sizes)

    def take(self, whole: Tensor) -> Tensor:
        """The piece, contiguous and in memory of its own."""
        parts = [whole.narrow(self.dim, start, stop - start) for start, stop in self.intervals]
        if self.padded or not parts:
            shape = list(whole.shape)
            shape[self.dim] = self.padded
            parts.append(whole.new_zeros(shape))
        return (
            torch.cat(parts, dim=self.dim) if len(parts) > 1 else parts[0].clone(memory_format=torch.contiguous_format)
        )
