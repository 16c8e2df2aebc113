"""Weights into a model: through transformers, with our attention in it, telling how far it is.

transformers builds the model without memory, reads in several threads and converts what a checkpoint stores otherwise
than a model wants it. What it reads are our `Stored` tensors: they know their file, so that an error names it, and read
only the part that this rank holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from transformers import GgufConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pagoda_engine.errors import ModelCorrupt, ModelUnsupported, OutOfMemory
from pagoda_engine.model import attention, dummy_weights, gguf_model
from pagoda_engine.model.checkpoint import Checkpoint, model_class
from pagoda_engine.model.parallel import plan
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.model.placing import place
from pagoda_engine.model.stored import SafetensorsFile, Stored

_LOG: Final = logging.getLogger(__name__)
_PROGRESS_BAR: Final = "Loading weights"  # what transformers' core_model_loading calls its own

OnPercent = Callable[[float], None]


def load(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    dummy: bool,
    on_percent: OnPercent,
    group: Group | None = None,
) -> PreTrainedModel:
    """The model on `device`, ready to run, or the part of it that is this rank's of `group`.

    A GGUF's weights are dequantised to `dtype`. `dummy` makes random weights and reads only the config. Raises
    ModelUnsupported; ModelCorrupt or ModelNotFound naming the file and, where it is one, the tensor; OutOfMemory.
    """
    attention.register()
    loader = _Loader(checkpoint, config, dtype, device, group or Group.alone())
    try:
        model = loader.load(dummy=dummy, on_percent=on_percent)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(
            f"the weights of {checkpoint.path} don't fit in the memory of {device} as {dtype}: "
            "take a smaller model, or a device with more memory"
        ) from error
    return model.eval().requires_grad_(False)


@dataclass(slots=True)
class _Loader:
    checkpoint: Checkpoint
    config: PreTrainedConfig
    dtype: torch.dtype
    device: torch.device
    group: Group
    stored: dict[str, Stored] = field(default_factory=dict)

    def load(self, *, dummy: bool, on_percent: OnPercent) -> PreTrainedModel:
        cls, started = model_class(self.config), time.monotonic()
        if self.group.size > 1:
            plan.check(self.config, self.group.size, cls.__name__)
        with ExitStack() as files, _reported(on_percent):
            if not dummy and not self._open(files):
                return self._by_transformers(cls)
            model, loading = self._from_pretrained(
                self._prepared(cls, dummy=dummy),
                pretrained_model_name_or_path=None,
                state_dict=self.stored,
            )
        model.__class__ = cls
        self._check(cls, loading)
        if not dummy:
            self._tell(time.monotonic() - started)
        return model

    def _open(self, files: ExitStack) -> bool:
        """Find the checkpoint's tensors. False for a GGUF that transformers must read."""
        found: Iterator[Stored]
        if self.checkpoint.gguf_name is None:
            tensors = []
            for path, header in self.checkpoint.headers().items():
                file = SafetensorsFile(path, self.device)
                files.callback(file.close)
                tensors += [file.stored(tensor) for tensor in header]
            found = iter(tensors)
        else:
            gguf_header = self.checkpoint.gguf_header()
            if gguf_model.read_config(gguf_header) is None:
                return False
            found = gguf_model.stored(self.config, self.checkpoint.path, gguf_header, self.device)
        self.stored.update((tensor.name, tensor) for tensor in found)
        return True

    def _prepared(self, cls: type[PreTrainedModel], *, dummy: bool) -> type[PreTrainedModel]:
        """A class whose models are split as soon as they are made, while they have no memory yet."""

        def make(model: PreTrainedModel, *args: Any, **options: Any) -> None:
            cls.__init__(model, *args, **options)
            wholes = dict(model.state_dict())
            if dummy:
                self.stored.update(dummy_weights.stored(model, self.checkpoint.path, self.device))
            pieces = plan.split(model, self.group) if self.group.size > 1 else {}
            place(self.stored.values(), model, wholes, pieces, self.group.rank, self.group.size)

        return type(cls.__name__, (cls,), {"__init__": make, "__module__": cls.__module__})

    def _by_transformers(self, cls: type[PreTrainedModel]) -> PreTrainedModel:
        if self.group.size > 1:
            raise ModelUnsupported(
                f"{self.checkpoint.path} is a GGUF file that only transformers can read, which can't split it over "
                f"{self.group.size} ranks; use --tensor-parallel-size 1, or the model's safetensors files"
            )
        options = self.checkpoint.source | {"quantization_config": GgufConfig(dequantize=True)}
        model, loading = self._from_pretrained(cls, **options)
        self._check(cls, loading)
        return model

    def _from_pretrained(self, cls: type[PreTrainedModel], **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        try:
            model, loading = cls.from_pretrained(
                config=self.config,
                dtype=self.dtype,
                device_map={"": self.device},
                attn_implementation=attention.IMPLEMENTATION,
                output_loading_info=True,
                **options,
            )
        except torch.OutOfMemoryError:
            raise
        except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
            raise ModelCorrupt(f"the weights in {self.checkpoint.path} can't be loaded: {error}") from error
        return model, loading

    def _check(self, cls: type[PreTrainedModel], loading: dict[str, Any]) -> None:
        """Raise ModelCorrupt where the model did not get all of its weights."""
        where = self.checkpoint.index or self.checkpoint.path
        if missing := sorted(loading["missing_keys"]):
            others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise ModelCorrupt(
                f"{where} has no tensor {missing[0]!r}{others}, which a {cls.__name__} needs; fetch the model again"
            )
        for what in ("mismatched_keys", "error_msgs"):
            if loading.get(what):
                found = ", ".join(sorted(map(str, loading[what]))[:3])
                raise ModelCorrupt(f"the weights in {where} are not those of a {cls.__name__}: {found}")

    def _tell(self, seconds: float) -> None:
        files = len({tensor.where for tensor in self.stored.values()})
        gib = sum(tensor.bytes_read for tensor in self.stored.values()) / 2**30
        _LOG.info(
            "loaded %s: %d file%s, %.2f GiB of weights in %.1f s, %.2f GiB/s",
            *(self.checkpoint.path, files, "" if files == 1 else "s", gib, seconds, gib / seconds),
        )


@contextmanager
def _reported(on_percent: OnPercent) -> Iterator[None]:
    """Hear of each tensor that transformers loads, by its own hook for progress bars."""

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and kwargs.get("desc") == _PROGRESS_BAR:
            return _counted(args[0], on_percent)
        return factory(*args, **kwargs)

    before = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


def _counted(items: Any, on_percent: OnPercent) -> Iterator[Any]:
    total = len(items)
    for done, item in enumerate(items):
        on_percent(100 * done / total)
        yield item
    on_percent(100.0)
