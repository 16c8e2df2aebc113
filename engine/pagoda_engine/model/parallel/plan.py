"""Splits a model without weights over the ranks: which part of each parameter is here, and where outputs meet.

Families say how in transformers, by a style for each module (`tp_plan`, e.g. `layers.*.self_attn.q_proj: colwise`).
The styles' names and meanings are those of transformers' distributed/tensor_parallel.py; what they do is done here with
plain local tensors: a split linear layer is a smaller linear layer, and hooks add up or join what the ranks computed.
Beyond the plans, KV heads are held by several ranks where there are fewer of them, and the vocabulary's embedding and
head are always split. Layouts: Shoeybi et al., Megatron-LM, https://arxiv.org/abs/1909.08053.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pagoda_engine.contract import tensor_parallel_problem, tensor_parallel_sizes
from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.model.parallel.pieces import Piece, share

Pieces = Mapping[str, Piece]

_KEY_VALUE: Final = ("k_proj", "v_proj")
_FUSED: Final = ("qkv_proj", "query_key_value", "c_attn")
# What matters to gradients only, and what says that a module's own parameters are local, as all are here.
_NOTHING_TO_DO: Final = ("replicated_with_grad_allreduce", "replicate", "mla_kv_a_proj", "local_params")
_HEAD_COUNTS: Final = ("num_heads", "num_attention_heads")
_KV_HEAD_COUNT: Final = "num_key_value_heads"


def check(config: PreTrainedConfig, size: int, name: str) -> None:
    """Raises ModelUnsupported where the heads of the model called `name` can't be spread over `size` ranks."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    if problem := tensor_parallel_problem(size, heads, kv_heads):
        sizes = ", ".join(map(str, tensor_parallel_sizes(heads, kv_heads)))
        raise ModelUnsupported(f"{name}: {problem}; use a --tensor-parallel-size of {sizes}")


def split(model: PreTrainedModel, group: Group) -> dict[str, Piece]:
    """Replace what this rank holds a part of by parameters of the part's shape, without values, and add the hooks.

    Returns the pieces by parameter name. Raises ModelUnsupported where transformers has no plan for the family, or one
    with a style that is not known here.
    """
    return _Splitter(model, group).split()


class _Splitter:
    def __init__(self, model: PreTrainedModel, group: Group) -> None:
        text = model.config.get_text_config()
        self._model = model
        self._name = type(model).__name__
        self._group = group
        self._heads: int = text.num_attention_heads
        self._kv_heads: int = getattr(text, "num_key_value_heads", None) or self._heads
        self._pieces: dict[str, Piece] = {}

    def split(self) -> dict[str, Piece]:
        plan = dict(self._model.tp_plan or {})
        styles = self._styles()
        if not any(style in ("colwise", "colwise_gather_output") for name, style in plan.items() if "*" in name):
            raise self._refused("transformers has no plan for it")
        ends = (self._model.get_input_embeddings(), self._model.get_output_embeddings())
        parameters = dict(self._model.named_parameters())
        for name, module in list(self._model.named_modules()):
            style = plan.get(_generic(name))
            if style is None or module in ends or style in _NOTHING_TO_DO:
                continue
            if style not in styles:
                raise self._refused(f"its plan has {name} in the style {style!r}, which is not known here")
            styles[style](name, module)
        for name, parameter in parameters.items():
            if style := plan.get(_generic(name)):
                self._split_parameter(name, parameter, style)
        self._split_vocabulary(*ends)
        return self._pieces

    def _styles(self) -> dict[str, Callable[[str, nn.Module], None]]:
        return {
            "colwise": self._columns,
            "colwise_gather_output": self._gathered_columns,
            "colwise_rep": self._gathered_columns,
            "rowwise": self._rows,
            "rowwise_split_input": self._rows_of_whole_input,
            "rowwise_rep": self._rows_of_whole_input,
            "moe_tp_experts": lambda _, module: self._add_up(module),
            "all_reduce": lambda _, module: self._add_up(module),
        }

    def _columns(self, name: str, module: nn.Module) -> None:
        """Each rank computes some of the outputs; for attention, those of whole heads."""
        linear = self._linear(name, module)
        part = name.rpartition(".")[2]
        replicated = self._kv_heads % self._group.size != 0
        if replicated and part in _FUSED:
            raise self._refused(
                f"{name} holds queries, keys and values in one, and there are fewer KV heads than ranks"
            )
        if replicated and part in _KEY_VALUE:
            head = self._group.rank * self._kv_heads // self._group.size
            width = linear.out_features // self._kv_heads
            rows = (head * width, (head + 1) * width)
        else:
            rows = self._share(linear.out_features)
        self._set(name, linear, "weight", Piece.of(-2, rows))
        self._set(name, linear, "bias", Piece.of(-1, rows))
        linear.out_features = rows[1] - rows[0]
        if part in ("q_proj", "query_key_value"):
            self._localise_heads(self._model.get_submodule(name.rpartition(".")[0]))

    def _gathered_columns(self, name: str, module: nn.Module) -> None:
        """As `_columns`, but what follows wants the outputs of all ranks."""
        linear = self._linear(name, module)
        width, rows = linear.out_features, self._share(linear.out_features)
        self._set(name, linear, "weight", Piece.of(-2, rows))
        self._set(name, linear, "bias", Piece.of(-1, rows))
        linear.register_forward_hook(lambda _module, _args, output: self._group.all_gather(output, width))

    def _rows(self, name: str, module: nn.Module) -> None:
        """Each rank multiplies its part of the inputs; the outputs are partial sums."""
        linear = self._linear(name, module)
        columns = self._share(linear.in_features)
        self._set(name, linear, "weight", Piece.of(-1, columns))
        # Added once: on the other ranks the bias is zero.
        if self._group.rank > 0:
            self._set(name, linear, "bias", Piece(-1, (), linear.out_features))
        linear.in_features = columns[1] - columns[0]
        self._add_up(linear)

    def _rows_of_whole_input(self, name: str, module: nn.Module) -> None:
        start, stop = self._share(self._linear(name, module).in_features)
        self._rows(name, module)
        module.register_forward_pre_hook(lambda _module, args: (args[0][..., start:stop], *args[1:]))

    def _add_up(self, module: nn.Module) -> None:
        module.register_forward_hook(lambda _module, _args, output: self._group.all_reduce(output))

    def _split_parameter(self, name: str, parameter: nn.Parameter, style: str) -> None:
        """A parameter with a style of its own: experts' matrices [experts, out, in], attention's sinks [heads]."""
        module_name, _, own = name.rpartition(".")
        module = self._model.get_submodule(module_name)
        dim = -1 if style.endswith("rowwise") or parameter.dim() == 1 else -2
        if style in ("packed_colwise", "packed_rowwise"):  # gate and up, one after the other
            half = parameter.shape[dim] // 2
            start, stop = self._share(half)
            self._set(module_name, module, own, Piece.of(dim, (start, stop), (half + start, half + stop)))
        elif style in ("rowwise", "colwise"):
            self._set(module_name, module, own, Piece.of(dim, self._share(parameter.shape[dim])))
        elif style not in _NOTHING_TO_DO:
            raise self._refused(f"its plan has {name} in the style {style!r}, which is not known here")

    def _split_vocabulary(self, embedding: nn.Module | None, head: nn.Module | None) -> None:
        """Each rank holds the same number of rows of both, and a row of zeros for the tokens of other ranks."""
        if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
            raise self._refused("its embedding or its head is of a kind of its own")
        names = {module: name for name, module in self._model.named_modules()}
        rank, size = self._group.rank, self._group.size
        vocabulary = head.out_features
        if embedding.num_embeddings != vocabulary:
            raise self._refused(f"it embeds {embedding.num_embeddings} tokens and predicts {vocabulary}")
        rows = -(-vocabulary // size)
        first, last = min(rank * rows, vocabulary), min((rank + 1) * rows, vocabulary)
        for module in (embedding, head):
            self._set(names[module], module, "weight", Piece(-2, ((first, last),), rows + 1))
        self._set(names[head], head, "bias", Piece(-1, ((first, last),), rows + 1))
        embedding.num_embeddings = head.out_features = rows + 1
        embedding.padding_idx = None

        def local_ids(_module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
            ids = args[0] - first
            return ids.masked_fill((ids < 0) | (ids >= last - first), rows)

        embedding.register_forward_pre_hook(local_ids)
        self._add_up(embedding)
        head.register_forward_hook(lambda _module, _args, output: self._group.gather(output[..., :rows], vocabulary))

    def _localise_heads(self, attention: nn.Module) -> None:
        """For families whose attention reshapes by a number of heads that it keeps."""
        size = self._group.size
        for attribute in _HEAD_COUNTS:
            if getattr(attention, attribute, None) == self._heads:
                setattr(attention, attribute, self._heads // size)
        if getattr(attention, _KV_HEAD_COUNT, None) == self._kv_heads:
            setattr(attention, _KV_HEAD_COUNT, max(1, self._kv_heads // size))

    def _linear(self, name: str, module: nn.Module) -> nn.Linear:
        if type(module) is not nn.Linear:
            raise self._refused(f"{name} is a {type(module).__name__}, which can't be split")
        return module

    def _set(self, module_name: str, module: nn.Module, parameter: str, piece: Piece) -> None:
        whole = module._parameters.get(parameter)
        if whole is None:
            return  # a layer without a bias
        local = torch.empty(piece.shape(whole.shape), dtype=whole.dtype, device="meta")
        setattr(module, parameter, nn.Parameter(local, requires_grad=False))
        self._pieces[f"{module_name}.{parameter}"] = piece

    def _share(self, width: int) -> tuple[int, int]:
        return share(width, self._group.rank, self._group.size)

    def _refused(self, reason: str) -> ModelUnsupported:
        return ModelUnsupported(
            f"{self._name} can't be split over {self._group.size} ranks: {reason}; use --tensor-parallel-size 1"
        )


def _generic(name: str) -> str:
    """A name with its numbers replaced as plans have them: `model.layers.3.mlp` is `model.layers.*.mlp`."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
