"""Finds for each tensor of a checkpoint the parameter that it becomes (part of), and checks it before a byte is read.

Names and conversions (the experts of a mixture are merged into one parameter, say) are transformers': its
core_model_loading.py applies the same when it loads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Size, Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from pagoda_engine.errors import ModelCorrupt, ModelUnsupported
from pagoda_engine.model.parallel.pieces import Piece, share
from pagoda_engine.model.parallel.plan import Pieces
from pagoda_engine.model.stored import Stored

# Conversions that keep a source's rows and columns together, so that parts of sources make parts of the result.
_SPLITTABLE = ("MergeModulelist", "Concatenate")


def place(
    tensors: Iterable[Stored],
    model: PreTrainedModel,
    wholes: Mapping[str, Tensor],
    pieces: Pieces,
    rank: int,
    size: int,
) -> None:
    """Give each tensor the piece of it that this rank holds.

    `wholes` are the model's tensors before it was split, by name. Raises ModelCorrupt naming file and tensor for a
    wrong shape or dtype; ModelUnsupported where a tensor that is converted can't be split.
    """
    conversions = get_model_conversion_mapping(model)
    renamings = [one for one in conversions if isinstance(one, WeightRenaming)]
    converters = [one for one in conversions if isinstance(one, WeightConverter)]
    merged: dict[str, list[Stored]] = {}
    for tensor in tensors:
        target, pattern = rename_source_key(tensor.name, renamings, converters, model.base_model_prefix, wholes)
        if target not in wholes and tensor.name in wholes:
            target, pattern = tensor.name, None
        if target not in wholes:
            continue  # transformers leaves it alone too
        whole, piece = wholes[target], pieces.get(target)
        if whole.is_floating_point() and not (tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1):
            raise ModelCorrupt(
                f"{tensor.where}: tensor {tensor.name!r} has the dtype {_name(tensor)}, and the model wants "
                "floating-point weights; take an unquantised checkpoint"
            )
        if pattern is None:
            if tensor.shape != tuple(whole.shape):
                raise ModelCorrupt(
                    f"{tensor.where}: tensor {tensor.name!r} has the shape {tensor.shape} and should have "
                    f"{tuple(whole.shape)}"
                )
            tensor.piece = piece
            continue
        converter = next(one for one in converters if pattern in one.source_patterns)
        if len(converter.target_patterns) == 1:
            merged.setdefault(target, []).append(tensor)
        if piece is not None:
            kinds = [type(operation).__name__ for operation in converter.operations]
            if len(tensor.shape) != whole.dim() - 1 or not set(kinds) <= set(_SPLITTABLE):
                raise ModelUnsupported(
                    f"{type(model).__name__} can't be split over {size} ranks: the checkpoint's {tensor.name!r} is "
                    f"converted ({', '.join(kinds)}) on its way into {target!r}; use --tensor-parallel-size 1"
                )
            # One of several tensors that stand behind each other in the parameter: each is split by itself.
            tensor.piece = Piece.of(piece.dim, share(tensor.shape[piece.dim], rank, size))
    for target, sources in merged.items():
        _check_sum(target, sources, wholes[target].shape)


def _check_sum(target: str, sources: list[Stored], shape: Size) -> None:
    """Raise ModelCorrupt unless the tensors that a parameter is made of have its number of elements."""
    found = sum(math.prod(source.shape) for source in sources)
    if found == math.prod(shape):
        return
    odd = min(sources, key=lambda source: sum(other.shape == source.shape for other in sources))
    raise ModelCorrupt(
        f"{odd.where}: {len(sources)} tensors such as {odd.name!r} of shape {odd.shape} make up {target!r} of shape "
        f"{tuple(shape)}, and they have {found} elements where it has {math.prod(shape)}; fetch the model again"
    )


def _name(tensor: Stored) -> str:
    return str(tensor.dtype).removeprefix("torch.")
