"""The header of a GGUF file: metadata and tensor shapes, from a file that nobody vouches for.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian). Every length is
checked against what is left of a fixed budget before a byte is read, so that a hostile file costs neither memory nor
time; whatever is not as the format says is ModelCorrupt.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Final

from pagoda_engine.errors import ModelCorrupt

_BUDGET: Final = 256 << 20  # bytes of header; vocabularies of 256k tokens with merges need about 20 MB
_LONGEST_STRING: Final = 16 << 20
_MOST_TENSORS: Final = 1 << 20
_MOST_ELEMENTS: Final = 1 << 50
_DEEPEST_ARRAY: Final = 4

# Value types by number: struct's letter for the scalars.
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9

# ggml tensor types by number: (elements in a block, bytes in a block), from ggml.h and ggml-common.h.
_TENSOR_TYPES: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 40),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
}

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Array:
    """An array of the metadata: how many elements it has, and their values where they are a few numbers."""

    length: int
    numbers: tuple[int | float | bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's place. `shape` is in ggml's order, fastest dimension first; `offset` counts from the data's start."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int | None:
        """Bytes in the file, or None for a type that is not known here."""
        known = _TENSOR_TYPES.get(self.kind)
        return None if known is None else -(-self.elements // known[0]) * known[1]


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the weights. Strings inside arrays (the vocabulary) are counted, not kept."""

    metadata: Mapping[str, Scalar | Array]
    tensors: tuple[Tensor, ...]
    data_start: int

    @property
    def end(self) -> int:
        """The least size in bytes of a file with this header: a shorter one was cut off."""
        ends = [tensor.offset + (tensor.bytes or 0) for tensor in self.tensors]
        return self.data_start + max(ends, default=0)


def read_header(file: IO[bytes], size: int | None = None) -> Header:
    """Read a GGUF header from the file's present position.

    `size`, where known, is the whole file's in bytes, and a file shorter than its tensors is refused. Raises
    ModelCorrupt, and nothing else, whatever the bytes are; errors of the file itself pass.
    """
    cursor = _Cursor(file)
    if cursor.take(4) != b"GGUF":
        raise ModelCorrupt("not a GGUF file: it does not start with 'GGUF'")
    version = cursor.scalar("I")
    if version not in (2, 3):
        raise ModelCorrupt(
            f"GGUF version {version} can't be read, only 2 and 3 (little endian); convert the file again"
        )
    tensor_count, value_count = cursor.scalar("Q"), cursor.scalar("Q")
    if tensor_count > _MOST_TENSORS:
        raise ModelCorrupt(f"GGUF header names {tensor_count} tensors, more than any model has")
    metadata: dict[str, Scalar | Array] = {}
    for _ in range(value_count):  # each value takes bytes of the budget, so the loop is bounded
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"))
    tensors = tuple(_tensor(cursor) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise ModelCorrupt(f"GGUF header has general.alignment {alignment!r}")
    header = Header(metadata, tensors, -(-cursor.position // alignment) * alignment)
    if size is not None and size < header.end:
        raise ModelCorrupt(f"GGUF file was cut off: it has {size} bytes and its tensors need {header.end}")
    return header


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.string()
    dimensions = cursor.scalar("I")
    if dimensions > 8:
        raise ModelCorrupt(f"GGUF tensor {name[:80]!r} has {dimensions} dimensions")
    shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ModelCorrupt(f"GGUF tensor {name[:80]!r} has the shape {shape}, larger than any model")
    return Tensor(name, shape, cursor.scalar("I"), cursor.scalar("Q"))


class _Cursor:
    """Reads little-endian values, never past the budget."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > _BUDGET - self.position:
            raise ModelCorrupt(f"GGUF header asks for {count} bytes at byte {self.position}, beyond any sound header")
        data = self._file.read(count)
        if len(data) != count:
            raise ModelCorrupt(f"GGUF header ends at byte {self.position + len(data)}, in the middle of a value")
        self.position += count
        return data

    def scalar(self, letter: str) -> int:
        """One number. Typed as int, which all the structure's own fields are."""
        size = struct.calcsize("<" + letter)
        return int(struct.unpack("<" + letter, self.take(size))[0])

    def string(self) -> str:
        length = self.scalar("Q")
        if length > _LONGEST_STRING:
            raise ModelCorrupt(f"GGUF header has a string of {length} bytes at byte {self.position}")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Scalar | Array:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(1)
        value: Scalar = struct.unpack("<" + self._letter(kind), self.take(struct.calcsize("<" + self._letter(kind))))[0]
        return value

    def array(self, depth: int) -> Array:
        kind, length = self.scalar("I"), self.scalar("Q")
        if kind == _STRING:
            for _ in range(length):  # each takes 8 bytes of the budget at least
                self.take(self.scalar("Q"))
            return Array(length)
        if kind == _ARRAY:
            if depth >= _DEEPEST_ARRAY:
                raise ModelCorrupt(f"GGUF header nests arrays deeper than {_DEEPEST_ARRAY} at byte {self.position}")
            for _ in range(length):
                self.array(depth + 1)
            return Array(length)
        letter = self._letter(kind)
        data = self.take(length * struct.calcsize("<" + letter))
        few = length <= 1024  # one number a layer, say; the vocabulary's scores are of no use here
        return Array(length, struct.unpack(f"<{length}{letter}", data) if few else ())

    def _letter(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ModelCorrupt(f"GGUF header has a value of the unknown type {kind} at byte {self.position}")
        return _SCALARS[kind]
