"""A step's inputs on their way to the device: all fields in one buffer, which is one copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT: Final = 128  # bytes; kernels are compiled for aligned pointers

_TOKEN: Final = {"ids": np.int64, "sources": np.int64, "positions": np.int64, "slots": np.int64}
_SEQUENCE: Final = {"tables": np.int64, "contexts": np.int32}
_ROW: Final = {
    "rows": np.int64,
    "temperature": np.float32,
    "top_k": np.int32,
    "top_p": np.float32,
    "min_p": np.float32,
    "uniform": np.float64,
}
_PADDING: Final = {"sources": -1, "slots": -1, "top_p": 1.0}
"""What stands where a step has nothing; 0 in the other fields. A sequence of no tokens asks for nothing."""


@dataclass(frozen=True, slots=True)
class _Field:
    offset: int
    count: int
    dtype: Any

    def of(self, data: np.ndarray) -> np.ndarray:
        return data[self.offset : self.offset + self.count * np.dtype(self.dtype).itemsize].view(self.dtype)


class StepInputs:
    """Room for the inputs of a step of up to so many tokens, sequences, and rows whose logits are wanted.

    A token has an id or, in `sources`, a place among the tokens sampled last; a position; a slot of the cache. A
    sequence has a row of the block tables and a context, and begins at `starts`. A row of logits is of the token `rows`
    and says how it wants its token drawn.
    """

    def __init__(self, tokens: int, sequences: int, rows: int, device: torch.device) -> None:
        counts = {
            **dict.fromkeys(_TOKEN, tokens),
            **dict.fromkeys(_SEQUENCE, sequences),
            **dict.fromkeys(_ROW, rows),
            "starts": sequences + 1,
        }
        kinds = {**_TOKEN, **_SEQUENCE, **_ROW, "starts": np.int32}
        self._fields: dict[str, _Field] = {}
        size = 0
        for name, count in counts.items():
            self._fields[name] = _Field(size, count, kinds[name])
            size += -(-count * np.dtype(kinds[name]).itemsize // _ALIGNMENT) * _ALIGNMENT
        self._blank = np.zeros(size, np.uint8)
        for name, value in _PADDING.items():
            self._fields[name].of(self._blank)[:] = value
        self._device = torch.from_numpy(self._blank).to(device, copy=True)  # the blank itself stays as it is

    def draft(self) -> Draft:
        """Arrays to write the next step's inputs into, with nothing in them yet."""
        # torch gives pinned memory out again only when the copies from it have ended, so a new draft is always free.
        host = torch.empty(len(self._blank), dtype=torch.uint8, pin_memory=self._device.is_cuda)
        data = host.numpy()
        data[:] = self._blank
        return Draft(host, {name: field.of(data) for name, field in self._fields.items()})

    def send(self, draft: Draft) -> None:
        """Copy to the device, after all that it was given to do before."""
        self._device.copy_(draft.host, non_blocking=True)

    def on_device(self, name: str, count: int) -> Tensor:
        """The first `count` values of a field; always at the same place."""
        field = self._fields[name]
        kind = np.dtype(field.dtype)
        data = self._device[field.offset : field.offset + count * kind.itemsize]
        return data.view(_TORCH[kind.name])


@dataclass(frozen=True, slots=True)
class Draft:
    """A step's inputs in main memory, by field."""

    host: Tensor
    fields: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fields[name]


_TORCH: Final = {
    "int32": torch.int32,
    "int64": torch.int64,
    "float32": torch.float32,
    "float64": torch.float64,
}
