"""Rotary embeddings whose frequencies follow the longest sequence, settled once for the longest that there can be.

transformers chooses them anew for each batch ("longrope" of Phi-3, "dynamic" of some Llamas), so that requests of one
batch would change each other's text, and keys in the cache would no longer match queries. Settled, a position has the
same angles whoever else is there. vLLM settles them in the same way.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pagoda_engine.errors import ModelUnsupported

_BY_LENGTH: Final = ("dynamic", "longrope")
_SETTLED: Final = "default"  # the type whose frequencies transformers leaves as they are


@torch.no_grad()
def settle(model: PreTrainedModel, max_model_len: int) -> None:
    """Make every rotary embedding of the model follow a token's position alone, for positions below `max_model_len`.

    Raises ModelUnsupported where one can't be made to; the message says up to which length it could.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if kinds in _BY_LENGTH:
            _settle(module, kinds, max_model_len)
            module.rope_type = _SETTLED
            _check(module, max_model_len)
        elif isinstance(kinds, dict):
            for layer_type, kind in kinds.items():
                if kind in _BY_LENGTH:
                    _settle(module, kind, max_model_len, layer_type)
                    kinds[layer_type] = _SETTLED
                    _check(module, max_model_len, layer_type)


def _settle(module: Any, kind: str, max_model_len: int, layer_type: str | None = None) -> None:
    buffer: Tensor = getattr(module, f"{layer_type}_inv_freq" if layer_type else "inv_freq")
    named = {"layer_type": layer_type} if layer_type else {}
    frequencies, _ = ROPE_INIT_FUNCTIONS[kind](module.config, buffer.device, seq_len=max_model_len, **named)
    buffer.copy_(frequencies)


def _check(module: Any, max_model_len: int, *layer_type: str) -> None:
    """Compare angles of the first positions alone with theirs beside the last: a module may have rules of its own."""
    alone = _angles(module, [0, 1], *layer_type)
    beside = _angles(module, [0, 1, max_model_len - 1], *layer_type)
    if any(not torch.equal(one, other[:, :2]) for one, other in zip(alone, beside, strict=True)):
        original = module.config.rope_parameters.get("original_max_position_embeddings")
        raise ModelUnsupported(
            f"{type(module).__name__} gives tokens other positions when a long text is beside them; "
            f"set --max-model-len to {original} or less"
        )


def _angles(module: Any, positions: list[int], *layer_type: str) -> tuple[Tensor, ...]:
    device = next(module.buffers()).device
    angles = module(torch.zeros(1, device=device), torch.tensor([positions], device=device), *layer_type)
    return angles if isinstance(angles, tuple) else (angles,)
