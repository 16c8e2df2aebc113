"""What a model says of itself besides its weights: tokenizer, chat template, end tokens, sampling defaults.

Read with transformers from a folder or a GGUF file, so that it is exactly what `transformers` would use; plain data,
since the HTTP process has no transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import (
    TOKENIZER_MAPPING,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from pagoda_engine.contract import EngineArgs
from pagoda_engine.errors import ModelCorrupt, ModelUnsupported
from pagoda_engine.model import gguf_model
from pagoda_engine.model.checkpoint import Checkpoint
from pagoda_engine.source import resolve

_SAMPLING_DEFAULTS: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`tokenizer` is the JSON of a `tokenizers.Tokenizer`; `special_tokens` are the names that chat templates use, such
    as `bos_token`; `sampling_defaults` are the model's own of temperature, top_p, top_k, min_p,
    repetition_penalty, max_new_tokens.

    `eos_token_ids` end a text: a chat model's turn often ends with the tokenizer's EOS where its config names another,
    and both count, as in vLLM.
    """

    tokenizer: str
    chat_template: str
    special_tokens: dict[str, str]
    sampling_defaults: dict[str, float]
    eos_token_ids: frozenset[int]


def read_model_card(args: EngineArgs) -> ModelCard:
    """Raises ModelNotFound, ModelCorrupt or ModelUnsupported (no tokenizer that runs outside of transformers)."""
    path = Path(str(resolve(args.model, args.download_dir)))
    checkpoint = Checkpoint.at(path)
    config = checkpoint.config()
    try:
        tokenizer = _tokenizer_class(checkpoint, config).from_pretrained(**checkpoint.source)
    except (OSError, ValueError, KeyError) as error:
        raise ModelCorrupt(f"the tokenizer of {path} can't be read: {error}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelUnsupported(f"the tokenizer of {path} ({type(tokenizer).__name__}) has no tokenizer.json form")
    generation = _generation_config(path, config)
    return ModelCard(
        tokenizer=backend.to_str(),
        chat_template=_template(tokenizer.chat_template),
        special_tokens={name: str(token) for name, token in tokenizer.special_tokens_map.items() if _is_text(token)},
        sampling_defaults=_sampling_defaults(generation),
        eos_token_ids=_ids(generation.eos_token_id) | _ids(config.eos_token_id) | _ids(tokenizer.eos_token_id),
    )


def _tokenizer_class(checkpoint: Checkpoint, config: PreTrainedConfig) -> type[Any]:
    """The class whose `from_pretrained` reads the tokenizer.

    AutoTokenizer parses a GGUF file's whole vocabulary just to learn the config, which takes longer than all the rest
    of a small model's start; where nothing beside the file says otherwise its choice is the one that the config leads
    to.
    """
    alone = checkpoint.gguf_name and not (checkpoint.folder / "tokenizer_config.json").is_file()
    found: type[Any] = AutoTokenizer
    if alone and gguf_model.understands(config):
        found = TOKENIZER_MAPPING.get(type(config), PreTrainedTokenizerFast)
    return found


def _generation_config(path: Path, config: PreTrainedConfig) -> GenerationConfig:
    if (path / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(str(path), local_files_only=True)
    return GenerationConfig(eos_token_id=config.eos_token_id)


def _sampling_defaults(generation: GenerationConfig) -> dict[str, float]:
    values = {name: getattr(generation, name, None) for name in _SAMPLING_DEFAULTS}
    return {name: value for name, value in values.items() if value is not None}


def _template(template: str | dict[str, str] | None) -> str:
    """Some models have several templates by name; a model without any answers `/v1/completions` only."""
    if isinstance(template, dict):
        return template.get("default", "")
    return template or ""


def _ids(value: int | list[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset(value) if isinstance(value, list) else frozenset({value})


def _is_text(token: Any) -> bool:
    return isinstance(token, str) or hasattr(token, "content")
