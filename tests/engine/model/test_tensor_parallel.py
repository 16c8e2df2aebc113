"""A model that is spread over ranks gives, token for token, the text of the whole one.

The ranks are threads here: what they run is what processes run, with real collectives between them. Processes, and how
they end, are `tests/engine/server/test_tensor_parallel.py`'s matter.
"""

import queue
import threading
from contextlib import nullcontext

import pytest
import torch
from tests.engine.model import tiny
from tests.engine.model.families import RUN
from transformers import (
    CONFIG_MAPPING,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Starcoder2Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from pagoda_engine.contract import EngineArgs
from pagoda_engine.core.blocks import BlockPool
from pagoda_engine.core.engine import EngineCore
from pagoda_engine.core.scheduler import Scheduler
from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model.build import build_engine, build_runner
from pagoda_engine.model.checkpoint import Checkpoint
from pagoda_engine.model.inputs import StepInputs
from pagoda_engine.model.loader import load
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.model.parallel.runner import ParallelRunner
from pagoda_engine.sampling_params import SamplingParams

# GPTBigCode of the older end of transformers' range, under the older end of torch's.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
SEEDED = SamplingParams(temperature=1.0, top_p=0.9, seed=5, prompt_logprobs=2, max_tokens=12, ignore_eos=True)
PROMPTS = [[5, 6, 7], list(range(3, 60)), [*range(3, 40), 99, 98], [200], [17] * 33]


def shape(heads: int, kv_heads: int, **others) -> dict:
    return {
        "hidden_size": heads * 8,
        "intermediate_size": 97,  # no number of ranks divides it
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": 211,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        **others,
    }


EXPERTS = {"num_experts_per_tok": 2, "num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 36}
SPREAD: dict[str, tuple[PreTrainedConfig, int]] = {
    "llama over 2": (LlamaConfig(**shape(8, 2), tie_word_embeddings=True), 2),
    "llama with biases over 3": (LlamaConfig(**shape(6, 3), attention_bias=True, mlp_bias=True), 3),
    "llama with fewer KV heads than ranks": (LlamaConfig(**shape(6, 1)), 3),
    "llama with each KV head in two ranks": (LlamaConfig(**shape(8, 2)), 4),
    "qwen2 of 14 heads and 2 KV heads over 2": (Qwen2Config(**shape(14, 2)), 2),
    "qwen3 over 3": (Qwen3Config(**shape(6, 3), head_dim=24), 3),
    "mixtral over 2": (MixtralConfig(**shape(4, 2, intermediate_size=96), **EXPERTS), 2),
    "qwen3_moe over 3": (Qwen3MoeConfig(**shape(6, 3), **EXPERTS, head_dim=16), 3),
    "gemma3, whose embedding scales, over 2": (Gemma3TextConfig(**shape(4, 2), head_dim=16, sliding_window=8), 2),
    "phi3, whose projections are joined, over 3": (Phi3Config(**shape(6, 3)), 3),
    "olmo2, whose norms see all heads, over 2": (Olmo2Config(**shape(4, 2)), 2),
    "gpt_neox over 2": (GPTNeoXConfig(**shape(4, 4)), 2),
    "granite over 2": (GraniteConfig(**shape(4, 2), logits_scaling=2.0), 2),
    "starcoder2 over 3": (Starcoder2Config(**shape(6, 3), use_bias=True), 3),
}


# Families for which transformers has no plan, or (longcat_flash) one with experts that give their input back.
WHOLE_ONLY = [
    "afmoe",
    "bitnet",
    "ctrl",
    "dbrx",
    "gpt-sw3",
    "gpt2",
    "gpt_bigcode",
    "gpt_oss",
    "granitemoe",
    "granitemoeshared",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "jetmoe",
    "longcat_flash",
    "modernbert-decoder",
    "opt",
    "persimmon",
    "phimoe",
]


class Threads:
    """Ranks 1..n as threads, with the interface of `Ranks` that `ParallelRunner` uses.

    They load one after the other, since transformers' loading changes the process for its duration.
    """

    def __init__(self, args: EngineArgs, folder) -> None:
        self.errors: list[Exception] = []
        self._args, self._folder = args, folder
        self._size = args.tensor_parallel_size
        self._loaded = threading.Barrier(self._size)
        self._steps = [queue.SimpleQueue() for _ in range(1, self._size)]
        self._threads = [threading.Thread(target=self._follow, args=(rank,)) for rank in range(1, self._size)]

    def engine(self, *, overlaps: bool = False) -> EngineCore:
        """With `overlaps`, as on GPUs: each step is launched before the one before it is read."""
        self._overlaps = overlaps
        built = build_runner(self._args, lambda _: None, self._group(0))
        built.plain.overlaps = overlaps
        blocks = BlockPool(built.info.num_blocks, built.info.block_size)
        return EngineCore(Scheduler(built.limits, blocks), ParallelRunner(built.plain, self), built.info)

    def step(self, payload: bytes) -> None:
        for steps in self._steps:
            steps.put(payload)

    def watched(self):
        return nullcontext()

    def close(self) -> None:
        for steps in self._steps:
            steps.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(30)
        assert self.errors == []

    def _group(self, rank: int) -> Group:
        def meet(_) -> None:
            if rank + 1 < self._size:
                self._threads[rank].start()
            self._loaded.wait(60)

        return Group(rank, self._size, self._folder, meet)

    def _follow(self, rank: int) -> None:
        try:
            runner = build_runner(self._args, lambda _: None, self._group(rank)).plain
            runner.overlaps = self._overlaps
            while (payload := self._steps[rank - 1].get()) is not None:
                runner.follow(StepInputs.from_bytes(payload))
        except Exception as error:
            self.errors.append(error)
            self._loaded.abort()


def saved(config: PreTrainedConfig, folder):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).float().save_pretrained(folder)
    return folder


def args_of(path, size: int, **others) -> EngineArgs:
    options = {"device": "cpu", "dtype": "float32", "kv_cache_memory_bytes": 4 << 20, "max_num_seqs": 8, **others}
    return EngineArgs(str(path), tensor_parallel_size=size, **options)


@pytest.mark.parametrize("name", SPREAD)
def test_a_model_over_several_ranks_gives_the_text_of_the_whole_one(tmp_path, generate, name):
    config, size = SPREAD[name]
    path = saved(config, tmp_path / "model")
    params = [GREEDY, GREEDY, GREEDY, SEEDED, GREEDY]
    whole = build_engine(args_of(path, 1), lambda _: None)
    expected = generate(whole, PROMPTS, params)
    assert len({tuple(text) for text in expected}) == len(PROMPTS), "the reference must tell its prompts apart"
    ranks = Threads(args_of(path, size, max_num_batched_tokens=24), tmp_path)
    try:
        engine = ranks.engine()
        assert generate(engine, PROMPTS, params, arrivals=2) == expected
    finally:
        ranks.close()


@pytest.mark.full
@pytest.mark.parametrize("family", RUN, ids=lambda family: family.model_type)
def test_every_family_gives_the_text_of_the_whole_model_or_is_refused(tmp_path, generate, family):
    if family.model_type not in CONFIG_MAPPING:
        pytest.skip(f"the installed transformers has no {family.model_type}")
    tiny.model(tiny.config(family.model_type, **family.overrides)).save_pretrained(tmp_path / "model")
    expected = generate(build_engine(args_of(tmp_path / "model", 1), lambda _: None), PROMPTS, GREEDY)
    ranks = Threads(args_of(tmp_path / "model", 2), tmp_path)
    try:
        if family.model_type in WHOLE_ONLY:
            with pytest.raises(ModelUnsupported, match=r"can't be split over 2 ranks: .*; use --tens"):
                ranks.engine()
        else:
            assert generate(ranks.engine(), PROMPTS, GREEDY, arrivals=2) == expected
    finally:
        ranks.close()


def test_tokens_in_flight_reach_every_rank(tmp_path, generate):
    config, size = SPREAD["llama over 2"]
    path = saved(config, tmp_path / "model")
    params = [GREEDY, SEEDED, GREEDY, SEEDED, GREEDY]
    expected = generate(build_engine(args_of(path, 1), lambda _: None), PROMPTS, params)
    ranks = Threads(args_of(path, size, max_num_batched_tokens=24), tmp_path)
    try:
        assert generate(ranks.engine(overlaps=True), PROMPTS, params, arrivals=2) == expected
    finally:
        ranks.close()


@pytest.mark.parametrize(
    ("name", "sharded"), [("llama with fewer KV heads than ranks", 0.39), ("mixtral over 2", 0.53)]
)
def test_a_rank_reads_and_holds_its_part_only(tmp_path, name, sharded):
    """Columns are cut from whole rows, so more is read than held; KV heads and norms are everybody's."""
    config, size = SPREAD[name]
    checkpoint = Checkpoint.at(saved(config, tmp_path / "model"))

    def held(group: Group | None) -> int:
        options = {"dtype": torch.float32, "device": torch.device("cpu"), "dummy": False, "on_percent": lambda _: None}
        model = load(checkpoint, config, **options, group=group)
        return sum(parameter.numel() for parameter in model.parameters())

    parts = [held(Group(rank, size, tmp_path, id)) for rank in range(size)]
    assert max(parts) <= sharded * held(None)
    assert sum(parts) >= held(None)


def test_dummy_weights_are_the_same_for_any_number_of_ranks(tmp_path, generate):
    LlamaConfig(**shape(4, 2)).save_pretrained(tmp_path / "model")
    expected = generate(
        build_engine(args_of(tmp_path / "model", 1, load_format="dummy"), lambda _: None), PROMPTS, GREEDY
    )
    ranks = Threads(args_of(tmp_path / "model", 2, load_format="dummy"), tmp_path)
    try:
        assert generate(ranks.engine(), PROMPTS, GREEDY) == expected
    finally:
        ranks.close()


@pytest.mark.parametrize(
    ("config", "size", "words"),
    [
        (LlamaConfig(**shape(14, 2)), 3, r"TP 3 does not divide the model's 14 query heads; use a .* of 1, 2, 14$"),
        (LlamaConfig(**shape(28, 4)), 7, r"TP 7 neither divides the model's 4 KV heads nor is a multiple of them"),
        (GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64), 2, "GPT2LMHeadModel can't be split over 2 ranks"),
    ],
)
def test_what_cannot_be_spread_is_refused_by_name_with_the_fix(tmp_path, config, size, words):
    """Before anything is read: a checkpoint without weights is enough."""
    config.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelUnsupported, match=words):
        build_runner(
            args_of(tmp_path / "model", size, load_format="dummy"), lambda _: None, Group(0, size, tmp_path, id)
        )
