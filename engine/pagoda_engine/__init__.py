"""Pagoda's engine: a paged-attention inference server for one model, and the offline `LLM` over the same core.

`LLM` and `SamplingParams` are exported lazily (PEP 562): importing this package loads no torch, so that the command
line answers at once and the operator can read `pagoda_engine.contract` in an image without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda_engine.llm import LLM
    from pagoda_engine.sampling_params import SamplingParams

__all__ = ["LLM", "SamplingParams"]

_HOME = {"LLM": "pagoda_engine.llm", "SamplingParams": "pagoda_engine.sampling_params"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
