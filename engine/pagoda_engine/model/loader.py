"""Weights into a model: through transformers, with our attention in it, telling how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import GgufConfig, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from pagoda_engine.errors import ModelCorrupt, OutOfMemory
from pagoda_engine.model import attention, gguf_model
from pagoda_engine.model.checkpoint import Checkpoint, model_class

_PROGRESS_BAR: Final = "Loading weights"  # what transformers' core_model_loading calls its own


def load(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    dummy: bool,
    on_percent: Callable[[float], None],
) -> PreTrainedModel:
    """The model on `device`, ready to run; a GGUF's weights are dequantised to `dtype`.

    `dummy` makes random weights and reads only the config. Raises ModelUnsupported, ModelCorrupt naming the file or
    the tensors that are missing, OutOfMemory.
    """
    attention.register()
    cls = model_class(config)
    try:
        if dummy:
            with device:
                model = cls._from_config(config, dtype=dtype, attn_implementation=attention.IMPLEMENTATION)
        else:
            model = _load_weights(cls, checkpoint, config, dtype, device, on_percent)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(
            f"the weights of {checkpoint.path} don't fit in the memory of {device} as {dtype}: "
            "take a smaller model, or a device with more memory"
        ) from error
    return model.eval().requires_grad_(False)


def _load_weights(
    cls: type[PreTrainedModel],
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    on_percent: Callable[[float], None],
) -> PreTrainedModel:
    checkpoint.check_files()
    if checkpoint.gguf_name and gguf_model.read_config(header := checkpoint.gguf_header()):
        model = _empty(cls, config, dtype, device)
        gguf_model.load_weights(model, checkpoint.path, header, on_percent)
        return model
    options: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True)} if checkpoint.gguf_name else {}
    try:
        with _reported(on_percent):
            model, loading = cls.from_pretrained(
                **checkpoint.source,
                **options,
                config=config,
                dtype=dtype,
                device_map={"": device},
                attn_implementation=attention.IMPLEMENTATION,
                use_safetensors=True,
                output_loading_info=True,
            )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, SafetensorError) as error:
        raise ModelCorrupt(f"the weights in {checkpoint.path} can't be loaded: {error}") from error
    for what in ("missing_keys", "mismatched_keys", "error_msgs"):
        if loading.get(what):
            found = ", ".join(sorted(map(str, loading[what]))[:3])
            raise ModelCorrupt(
                f"the weights in {checkpoint.path} are not those of a {cls.__name__}: "
                f"{len(loading[what])} {what.replace('_', ' ')}, among them {found}"
            )
    loaded: PreTrainedModel = model
    return loaded


def _empty(
    cls: type[PreTrainedModel], config: PreTrainedConfig, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model with its buffers made and its parameters not yet filled."""
    with no_init_weights(), device:
        model = cls._from_config(config, dtype=dtype, attn_implementation=attention.IMPLEMENTATION)
    model.tie_weights()
    return model


@contextmanager
def _reported(on_percent: Callable[[float], None]) -> Iterator[None]:
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


def _counted(items: Any, on_percent: Callable[[float], None]) -> Iterator[Any]:
    total = len(items)
    for done, item in enumerate(items):
        on_percent(100 * done / total)
        yield item
    on_percent(100.0)
