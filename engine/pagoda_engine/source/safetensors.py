"""The header of a safetensors file: names, dtypes, shapes.

Format: https://github.com/huggingface/safetensors#format (8 bytes of length, then JSON). Read with the same care as any
file from the network; the weights are not touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

from pagoda_engine.errors import ModelCorrupt

_LONGEST_HEADER: Final = 100_000_000  # the format's own limit

# Bytes of an element, for the dtypes that have whole bytes.
_ITEM_BYTES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}

# torch's names, which configs use, of the format's dtypes.
TORCH_NAMES: Final[Mapping[str, str]] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's shape, its dtype as the format writes it (`BF16`), and its bytes: how many, and where they start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    start: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(file: IO[bytes], name: str, size: int) -> tuple[Tensor, ...]:
    """Read the header of the file called `name`, which has `size` bytes. Raises ModelCorrupt."""
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
        raise ModelCorrupt(f"{name} is no safetensors file, or was cut off: its header claims {length} of {size} bytes")
    try:
        document = json.loads(file.read(length))
        document.pop("__metadata__", None)
        tensors = tuple(_tensor(key, value, 8 + length) for key, value in document.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelCorrupt(f"{name} has a damaged safetensors header: {error}") from None
    end = 8 + length + max((value["data_offsets"][1] for value in document.values()), default=0)
    if end != size:
        raise ModelCorrupt(f"{name} has {size} bytes, but its header describes {end}; fetch it again")
    return tensors


def _tensor(name: str, value: Mapping[str, Any], data_start: int) -> Tensor:
    start, end = map(int, value["data_offsets"])
    shape = tuple(map(int, value["shape"]))
    if not 0 <= start <= end or min(shape, default=0) < 0:
        raise ValueError(f"{name[:80]!r} has offsets {start} to {end} and shape {shape}")
    dtype = str(value["dtype"])
    item = _ITEM_BYTES.get(dtype)
    if item is not None and end - start != math.prod(shape) * item:
        raise ValueError(f"{name[:80]!r} has {end - start} bytes, too many or too few for {dtype} of shape {shape}")
    return Tensor(name, dtype, shape, end - start, data_start + start)
