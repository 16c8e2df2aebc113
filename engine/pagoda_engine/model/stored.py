"""A checkpoint's tensors before they are read: where each is, which part of it is wanted, and how to get it.

transformers asks for the values of such a tensor in one of its loading threads, `tensor[...]`, and puts them into the
model. So files are read in parallel, only as far as this rank needs them, and straight into what becomes the parameter.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from pagoda_engine.errors import ModelCorrupt
from pagoda_engine.model.parallel.pieces import Piece
from pagoda_engine.source import safetensors

_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_STAGING: Final = 32 << 20
"""Bytes of pinned memory for each thread that copies to a GPU."""

Rows = tuple[int, int]
Read = Callable[[Rows], Tensor]


class Stored:
    """A tensor of `shape` and `dtype` in the file `where`; `read` gives some of its rows, on the model's device.

    `piece` is the part that this rank holds, or None for the whole; `bytes_read` counts what was read for it.
    """

    def __init__(self, name: str, where: Path, shape: tuple[int, ...], dtype: torch.dtype, read: Read) -> None:
        self.name: Final = name
        self.where: Final = where
        self.shape: Final = shape
        self.dtype: Final = dtype
        self.piece: Piece | None = None
        self.bytes_read = 0
        self._read = read

    def __getitem__(self, everything: Any) -> Tensor:
        """The values, or this rank's piece of them. Raises ModelCorrupt naming file and tensor."""
        piece, rows = self.piece, (0, self.shape[0] if self.shape else 1)
        if piece is None:
            return self._counted(rows)
        if piece.dim + len(self.shape) == 0 and len(piece.intervals) == 1:
            # Rows lie together in the file: the rest of it is not read at all.
            own = piece.intervals[0]
            values = self._counted(own)
            return Piece(piece.dim, ((0, own[1] - own[0]),), piece.width).take(values) if piece.padded else values
        return piece.take(self._counted(rows))

    def _counted(self, rows: Rows) -> Tensor:
        values = self._read(rows)
        self.bytes_read += values.nbytes
        return values


class SafetensorsFile:
    """An open file that several threads read from at once."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._device = device
        self._descriptor = os.open(path, os.O_RDONLY)
        self._staging = threading.local()

    def close(self) -> None:
        os.close(self._descriptor)

    def stored(self, tensor: safetensors.Tensor) -> Stored:
        """Raises ModelCorrupt where the tensor's dtype is none that weights can have."""
        if tensor.dtype not in _DTYPES:
            raise ModelCorrupt(
                f"{self._path}: tensor {tensor.name!r} has the dtype {tensor.dtype}, which can't be read"
            )
        dtype = _DTYPES[tensor.dtype]

        def read(rows: Rows) -> Tensor:
            shape = (rows[1] - rows[0], *tensor.shape[1:]) if tensor.shape else ()
            row = tensor.bytes // max(1, tensor.shape[0]) if tensor.shape else tensor.bytes
            values = self._bytes(tensor.name, tensor.start + rows[0] * row, (rows[1] - rows[0]) * row)
            return values.view(dtype).view(shape)

        return Stored(tensor.name, self._path, tensor.shape, dtype, read)

    def _bytes(self, name: str, start: int, count: int) -> Tensor:
        values = torch.empty(count, dtype=torch.uint8, device=self._device)
        if self._device.type == "cpu":
            self._fill(name, values, start)
            return values
        staging = self._pinned()
        for at in range(0, count, _STAGING):
            piece = staging[: min(_STAGING, count - at)]
            self._fill(name, piece, start + at)
            values[at : at + len(piece)].copy_(piece)
        return values

    def _fill(self, name: str, target: Tensor, start: int) -> None:
        """Read into main memory. Not by a map of the file: one that shrinks meanwhile would kill the process."""
        view = target.numpy().data
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done:]], start + done)
            except OSError as error:
                raise ModelCorrupt(f"{self._path}: tensor {name!r} can't be read: {error}") from error
            if count == 0:
                raise ModelCorrupt(f"{self._path} was cut off while it was read: tensor {name!r} is not whole")
            done += count

    def _pinned(self) -> Tensor:
        """This thread's memory that a GPU copies from at full speed."""
        if not hasattr(self._staging, "memory"):
            self._staging.memory = torch.empty(_STAGING, dtype=torch.uint8, pin_memory=True)
        memory: Tensor = self._staging.memory
        return memory
