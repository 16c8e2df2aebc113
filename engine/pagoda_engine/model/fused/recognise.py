"""Find a decoder of the common shape in a transformers model, and prove it by running both.

A layer is taken for what its modules are called and shaped like, as every family of this shape calls them; nothing is
known of families. That is a guess: a multiplier, another activation or another order of halves leave no trace in the
modules. So each guess is computed plainly, in float32, and must give what the layer's own code gives for the same
random input. A model of which any part differs is left to transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pagoda_engine.kernels import plain
from pagoda_engine.model.attention import AttentionOptions
from pagoda_engine.model.fused.parts import Decoder, Layer, Norm

_TOKENS: Final = 12
_TOLERANCE: Final = 1e-3  # of the largest change that a layer makes; float32 computes it to about 1e-5

_PROJECTIONS: Final = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "output",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
}
_HEAD_NORMS: Final = {"q_norm": "query_norm", "k_norm": "key_norm"}


class NotRecognised(Exception):
    """The model is not of the common shape; the message says in which part."""


@torch.inference_mode()
def recognise(model: PreTrainedModel, max_model_len: int) -> Decoder:
    """The decoder that computes what `model` does, for positions below `max_model_len`. Raises NotRecognised."""
    modules = _layer_modules(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if type(head) is not nn.Linear or not isinstance(embedding, nn.Embedding):
        raise NotRecognised("its embedding or output layer is of a special kind")
    cos, sin = _angles(model, modules, max_model_len)
    norm = _norm(_only([m for n, m in model.base_model.named_children() if _is_norm(m)], "norm after the layers"))
    trace = _Trace.of(model, modules, max_model_len)
    layers = tuple(
        _proved(_guess(module, trace.attentions[index]), module, trace, index, cos, sin)
        for index, module in enumerate(modules)
    )
    decoder = Decoder(embedding, layers, norm, head, cos, sin)
    if len({(layer.heads, layer.kv_heads, layer.dim, layer.gate.out_features) for layer in layers}) != 1:
        raise NotRecognised("its layers differ in shape")
    if not torch.equal(trace.hidden[0], embedding.weight[trace.ids]):
        raise NotRecognised("it changes embeddings before the first layer")
    if not _close(
        trace.logits.float(), decoder.logits(trace.hidden[-1]), 0.05 if model.dtype != torch.float32 else _TOLERANCE
    ):
        raise NotRecognised("it does something else with the last layer's output")
    return decoder


@dataclass(frozen=True, slots=True)
class _Attention:
    """What a layer asked of its attention."""

    dim: int
    scale: float
    window: int | None


class _PlainStep:
    """An `AttentionStep` that computes plainly, without a cache, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[int, _Attention] = {}

    def attend(
        self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions
    ) -> Tensor:
        if queries.shape[-1] != values.shape[-1]:
            raise NotRecognised("its keys and values differ in size")
        if not options.plain:
            raise NotRecognised("its attention caps logits or has sinks")
        scale, window = options.scale, options.window
        self.asked[layer_index] = _Attention(queries.shape[-1], scale, window)
        output = plain.attention(queries.float(), keys.float(), values.float(), scale, window)
        return output.to(queries.dtype).contiguous()


@dataclass(frozen=True, slots=True)
class _Trace:
    """One pass of the model over a few tokens at scattered positions."""

    ids: Tensor
    positions: Tensor
    attentions: dict[int, _Attention]
    keywords: dict[int, dict[str, Any]]  # what each layer was called with
    hidden: list[Tensor]  # [tokens, hidden] before the first and after the last layer
    logits: Tensor

    @classmethod
    def of(cls, model: PreTrainedModel, modules: list[nn.Module], max_model_len: int) -> _Trace:
        vocabulary = model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(_TOKENS, device=model.device) * 7919 % vocabulary
        positions = torch.linspace(0, max_model_len - 1, _TOKENS).long().to(model.device)
        keywords: dict[int, dict[str, Any]] = {}
        hidden: list[Tensor] = []
        step = _PlainStep()

        def before(index: int) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                states = args[0] if args else kwargs["hidden_states"]
                if len(args) > 1:
                    raise NotRecognised("its layers are called in an unusual way")
                if index == 0:
                    hidden.append(states[0])
                keywords[index] = {key: value for key, value in kwargs.items() if key != "hidden_states"}

            return hook

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            hidden.append((output[0] if isinstance(output, tuple) else output)[0])

        hooks = [module.register_forward_pre_hook(before(i), with_kwargs=True) for i, module in enumerate(modules)]
        hooks.append(modules[-1].register_forward_hook(after))
        try:
            logits = model(input_ids=ids[None], position_ids=positions[None], use_cache=False, pagoda_step=step).logits[
                0
            ]
        finally:
            for hook in hooks:
                hook.remove()
        if len(keywords) != len(modules) or len(hidden) != 2 or len(step.asked) != len(modules):
            raise NotRecognised("its layers do not run once each, one after the other")
        return cls(ids, positions, step.asked, keywords, hidden, logits)


def _layer_modules(model: PreTrainedModel) -> list[nn.Module]:
    count = model.config.num_hidden_layers
    lists = [m for m in model.base_model.children() if isinstance(m, nn.ModuleList) and len(m) == count]
    return list(_only(lists, "list of layers"))


def _guess(module: nn.Module, attention: _Attention) -> Layer:
    """The layer that the modules suggest."""
    parts: dict[str, Any] = dict.fromkeys(_HEAD_NORMS.values())
    norms = [_norm(child) for child in module.children() if _is_norm(child)]
    for name, part in module.named_modules():
        leaf = name.rpartition(".")[2]
        if leaf in _PROJECTIONS and type(part) is nn.Linear:
            parts[_PROJECTIONS[leaf]] = part
        elif leaf in _HEAD_NORMS and _is_norm(part):
            parts[_HEAD_NORMS[leaf]] = _norm(part)
    missing = set(_PROJECTIONS.values()) - set(parts)
    if missing or len(norms) != 2:
        raise NotRecognised(f"{type(module).__name__} is made of other parts")
    layer = Layer(
        attention_norm=norms[0],
        mlp_norm=norms[1],
        dim=attention.dim,
        scale=attention.scale,
        window=attention.window,
        rotated=True,
        **parts,
    )
    owned = {id(parameter) for part in layer.modules() for parameter in part.parameters(recurse=False)}
    if owned != {id(parameter) for parameter in module.parameters()}:
        raise NotRecognised(f"{type(module).__name__} has parameters beyond the common ones")
    if (layer.query_norm is None) != (layer.key_norm is None):
        raise NotRecognised(f"{type(module).__name__} normalises queries or keys alone")
    for norm in (layer.query_norm, layer.key_norm):
        if norm and (norm.weight.shape != (layer.dim,) or norm.eps != layer.query_norm.eps):  # type: ignore[union-attr]
            raise NotRecognised(f"{type(module).__name__} normalises queries and keys in another way")
    if layer.dim % 2 or layer.gate.out_features % 2 or layer.query.in_features % 2:
        raise NotRecognised("it has an odd size")
    return layer


def _proved(guess: Layer, module: nn.Module, trace: _Trace, index: int, cos: Tensor, sin: Tensor) -> Layer:
    """The guess, or the one without rotary embedding, if it computes what the module does."""
    generator = torch.Generator().manual_seed(index)
    # Small, so that what the layer adds is not lost beside what it was given.
    hidden = (torch.randn(_TOKENS, guess.query.in_features, generator=generator) * 0.1).to(cos.device)
    cos, sin = cos[trace.positions], sin[trace.positions]
    exact = module if next(module.parameters()).dtype == torch.float32 else copy.deepcopy(module).float()
    keywords = {key: _in_float32(value, cos, sin) for key, value in trace.keywords[index].items()}
    keywords["pagoda_step"] = _PlainStep()
    output = exact(hidden[None], **keywords)
    wanted = (output[0] if isinstance(output, tuple) else output)[0]
    for layer in (guess, replace(guess, rotated=False)):
        if _close(wanted - hidden, layer(hidden, cos, sin) - hidden, _TOLERANCE):
            return layer
    raise NotRecognised(f"{type(module).__name__} computes something else than its parts suggest")


def _in_float32(value: Any, cos: Tensor, sin: Tensor) -> Any:
    """A layer's argument with the precision of the proof: rotary angles are given anew, not widened."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, Tensor) for part in value):
        return tuple(torch.cat((part, part), dim=-1)[None] for part in (cos, sin))
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _angles(model: PreTrainedModel, modules: list[nn.Module], count: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all positions, float32 [positions, pairs], from the model's one rotary embedding."""
    inside = {id(part) for module in modules for part in module.modules()}
    rotary = _only([m for m in _with_frequencies(model) if id(m) not in inside], "rotary embedding")
    device = model.device
    try:
        some = torch.zeros(1, 1, dtype=torch.float32, device=device)
        cos, sin = rotary(some, torch.arange(count, device=device)[None])
    except (TypeError, ValueError) as error:
        raise NotRecognised(f"its rotary embedding is of a special kind ({error})") from error
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def _with_frequencies(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(getattr(module, "inv_freq", None), Tensor))


def _is_norm(module: nn.Module) -> bool:
    parameters = dict(module.named_parameters())
    return set(parameters) == {"weight"} and parameters["weight"].ndim == 1 and _eps(module) is not None


def _norm(module: nn.Module) -> Norm:
    return Norm(module, _eps(module) or 0.0)


def _eps(module: nn.Module) -> float | None:
    for name in ("variance_epsilon", "eps"):
        if isinstance(value := getattr(module, name, None), float):
            return value
    return None


def _close(wanted: Tensor, found: Tensor, tolerance: float) -> bool:
    return wanted.shape == found.shape and bool((wanted - found).abs().max() <= tolerance * wanted.abs().max())


def _only(found: list[Any], what: str) -> Any:
    if len(found) != 1:
        raise NotRecognised(f"it has {len(found)} things that could be its {what}")
    return found[0]
