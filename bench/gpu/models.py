"""Engines over models by their shape alone, whose weights they make up, and requests for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.gpu.rows import Scale
from bench.gpu.shapes import Shape
from pagoda_engine.contract import EngineArgs
from pagoda_engine.core.engine import EngineCore
from pagoda_engine.core.request import Request
from pagoda_engine.model.build import build_engine
from pagoda_engine.sampling_params import SamplingParams


@contextmanager
def checkpoint(shape: Shape) -> Iterator[Path]:
    """A folder with the shape's config, for as long as it is needed."""
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(shape.config()))
        yield Path(folder)


def start(scale: Scale, folder: Path, *, max_num_seqs: int, max_model_len: int) -> EngineCore:
    """The engine, as `pagoda serve` would start it."""
    args = EngineArgs(
        model=str(folder),
        device=scale.device.type,
        dtype=str(scale.dtype).removeprefix("torch."),
        load_format="dummy",
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=64 if scale.tiny else 8192,
        kv_cache_memory_bytes=8 << 20 if scale.tiny else None,
    )
    return build_engine(args, lambda _: None)


class Prompts:
    """Requests of random tokens; no two have a prefix in common, and no token ends them."""

    def __init__(self, vocabulary: int) -> None:
        self._dice = np.random.default_rng(0)
        self._vocabulary = vocabulary
        self._made = 0

    def request(self, length: int, answer: int) -> Request:
        self._made += 1
        tokens = self._dice.integers(2, self._vocabulary, length).tolist()
        params = SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True)
        return Request(str(self._made), tokens, params, frozenset(), time.monotonic())
