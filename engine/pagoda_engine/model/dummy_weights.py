"""Random weights of the right shapes, for measurements and tests: the same for any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pagoda_engine.model.stored import Rows, Stored

_SPREAD: Final = 0.02


def stored(model: PreTrainedModel, where: Path, device: torch.device) -> Iterator[tuple[str, Stored]]:
    """Every tensor of a model without memory, as if it lay in a checkpoint; those that are tied to others left out."""
    tied = set(model.all_tied_weights_keys)
    for name, tensor in model.state_dict().items():
        if name not in tied:
            yield name, Stored(name, where, tuple(tensor.shape), tensor.dtype, _maker(name, tensor, device))


def _maker(name: str, like: Tensor, device: torch.device) -> Callable[[Rows], Tensor]:
    """Matrices are uniform around 0, biases 0, and the weights of norms 1; the name alone decides their values."""

    def make(rows: Rows) -> Tensor:
        values = torch.empty(like.shape, dtype=like.dtype, device=device)
        if name.endswith("bias"):
            values.zero_()
        elif like.dim() < 2 or not like.is_floating_point():
            values.fill_(1)
        else:
            seed = int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "little")
            values.uniform_(-_SPREAD, _SPREAD, generator=torch.Generator(device).manual_seed(seed))
        return values[slice(*rows)] if like.dim() else values

    return make
