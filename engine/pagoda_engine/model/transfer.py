"""Small numbers between host and device, without waiting for what the device is computing."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = Sequence[int] | Sequence[float] | np.ndarray


def upload(values: Numbers, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`values` as a tensor on the device; from pinned memory, since a copy from any other waits for the device."""
    tensor = torch.as_tensor(np.array(values) if isinstance(values, array) else values, dtype=dtype)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Download:
    """Tensors on their way to the host, as they are after what the device has been told to compute until now."""

    def __init__(self, *tensors: Tensor) -> None:
        self._host = [tensor.to("cpu", non_blocking=True, copy=True) for tensor in tensors]
        self._arrived: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in tensors):
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> list[list[Any]]:
        """Each tensor as a list; waits for these copies and for nothing that was launched after them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [tensor.tolist() for tensor in self._host]
