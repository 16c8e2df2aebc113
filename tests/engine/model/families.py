"""Every causal family of transformers: what the engine runs, and what it refuses, with the words of the refusal.

The table in engine/README.md is made of this, and test_families.py holds each line against the running engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Family:
    """A `model_type` that runs.

    `needs` are the things beyond plain causal attention and one feed-forward network that are seen in the tiny model of
    `overrides`. `fused` says that the engine's own kernels recognise it; all others run on transformers' layers.
    """

    model_type: str
    needs: str = ""
    fused: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)


_BOTH: Final = {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2}


def _rope(kind: str, **parameters: float) -> dict[str, Any]:
    """A rotary embedding of another type, made for 64 tokens; "default" for those who know none."""
    original = {"original_max_position_embeddings": 64} if kind in ("yarn", "llama3") else {}
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **original, **parameters}}


_COMPASS: Final = {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}}
_DRAFT: Final = {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
_MUSIC: Final = {"text_encoder": {"model_type": "t5"}, "audio_encoder": {"model_type": "encodec"}, "decoder": {}}
_DBRX_EXPERTS: Final = {"ffn_hidden_size": 96, "hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}

RUN: Final = (
    Family("afmoe", "windows, experts"),
    Family("apertus"),
    Family("arcee"),
    Family("aria_text", "experts"),
    Family("axk1", "narrow values, experts"),
    Family("beam", "windows"),
    Family("bitnet"),
    Family("cohere"),
    Family("cohere2", "windows"),
    Family("cohere_compass_text", overrides={"rope_parameters": _COMPASS}),
    Family("cohere2_moe", "windows, experts"),
    Family("ctrl"),
    Family("cwm", "windows", fused=True),
    Family(
        "dbrx",
        "experts",
        overrides={"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8}, "ffn_config": _DBRX_EXPERTS},
    ),
    Family("deepseek_v2", "narrow values, experts", overrides={"n_group": 1, "topk_group": 1}),
    Family("deepseek_v3", "narrow values, experts"),
    Family(
        "dots1",
        "windows, experts",
        overrides={"moe_intermediate_size": 32, "n_shared_experts": 1, "n_routed_experts": 4},
    ),
    Family("ernie4_5"),
    Family("ernie4_5_moe", "experts"),
    Family("exaone4", "windows"),
    Family("exaone_moe", "windows, experts"),
    Family("flex_olmo", "experts"),
    Family("flint", "windows, sinks"),
    Family("gemma"),
    Family("gemma2", "windows, soft cap"),
    Family("gemma3_text", "windows"),
    Family("gemma3n_text", "windows", overrides={"num_kv_shared_layers": 0}),
    Family("gemma4_text", "windows, mixed shapes"),
    Family("gemma4_unified_text", "windows, mixed shapes"),
    Family("glm"),
    Family("glm4"),
    Family("glm4_moe", "experts"),
    Family("glm4_moe_lite", "narrow values, experts"),
    Family("gpt-sw3"),
    Family("gpt2"),
    Family("gpt_bigcode", "multi-query"),
    Family("gpt_neox"),
    Family("gpt_oss", "windows, sinks, experts"),
    Family("granite", fused=True),
    Family("granite_swa", "windows, sinks"),
    Family("granitemoe", "experts"),
    Family("granitemoe_swa", "windows, sinks, experts"),
    Family("granitemoeshared", "experts"),
    Family("helium"),
    Family("hunyuan_v1_dense"),
    Family("hunyuan_v1_moe", "experts"),
    Family("hy_v3", "experts"),
    Family("hyperclovax"),
    Family("internlm3", fused=True),
    Family("iquestcoder", fused=True),
    Family("jais2"),
    Family("jetmoe", "experts"),
    Family("kolibri1", "windows, experts"),
    Family("laguna", "windows, experts", overrides=_BOTH),
    Family("llama", fused=True),
    Family("longcat_flash", "narrow values, experts"),
    Family("mellum", "windows, experts", overrides=_BOTH),
    Family("mimo_v2_flash", "windows, sinks, narrow values, mixed shapes, experts"),
    Family("minicpm3", "narrow values"),
    Family("minimax_m2", "experts"),
    Family("ministral", "windows", fused=True),
    Family("ministral3", "windows", fused=True),
    Family("mistral", "windows", fused=True),
    Family("mixtral", "windows, experts"),
    Family("modernbert-decoder", "windows"),
    Family("nanochat"),
    Family("olmo"),
    Family("olmo2"),
    Family("olmo3", "windows"),
    Family("olmoe", "experts"),
    Family("opt"),
    Family("persimmon"),
    Family("phi"),
    Family("phi3", "windows"),
    Family("phimoe", "experts", overrides={"sliding_window": None}),
    Family("qwen2", "windows", fused=True),
    Family("qwen2_moe", "experts", overrides={"use_sliding_window": False}),
    Family("qwen3", "windows", fused=True),
    Family("qwen3_moe", "windows, experts"),
    Family("seed_oss", fused=True),
    Family("smollm3", "windows", fused=True, overrides={"no_rope_layers": [1, 0]}),
    Family("solar_open", "experts"),
    Family("starcoder2", "windows"),
    Family("vaultgemma", "windows, soft cap"),
    Family("youtu", "narrow values"),
)


# Settings of families above that a default config leaves out.
VARIANTS: Final = {
    "llama-yarn": Family("llama", fused=True, overrides=_rope("yarn", factor=4.0)),
    "llama-linear": Family("llama", fused=True, overrides=_rope("linear", factor=2.0)),
    "llama-dynamic": Family("llama", fused=True, overrides=_rope("dynamic", factor=2.0)),
    "llama-llama3": Family(
        "llama", fused=True, overrides=_rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0)
    ),
    "granite-multipliers": Family(
        "granite",
        overrides={
            "attention_multiplier": 0.1,
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
        },
    ),
    "gemma2-caps": Family(
        "gemma2", "windows, soft cap", overrides={"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}
    ),
    "gemma3n-shared-kv": Family(
        "gemma3n_text",
        "windows",
        overrides={
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
        },
    ),
    "gemma4-shared-kv": Family(
        "gemma4_text",
        "windows, mixed shapes",
        overrides={
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Families that are refused for the same `reason`; the engine's error contains `words`."""

    reason: str
    words: str
    model_types: str
    by_config: bool = False  # then no model is made
    overrides: Mapping[str, Any] = field(default_factory=dict)


REFUSED: Final = (
    Refusal(
        "not causal, or masks of its own making",
        "attention that is not causal",
        "bert bert-generation camembert data2vec-text doge electra ernie roberta roberta-prelayernorm roc_bert "
        "xlm-roberta xlm-roberta-xl xmod",
        overrides={"default_language": "en_XX"},
    ),
    Refusal("attends several times in a layer", "attends twice", "diffllama hrm_text"),
    Refusal("does not tell its attention what its caller says", "does not pass its caller's arguments on", "nemotron"),
    Refusal(
        "layers with a state beyond keys and values",
        "has layers of (conv|hybrid|linear_attention|recurrent)",
        "granitemoehybrid lfm3 minimax recurrent_gemma zaya",
        by_config=True,
    ),
    Refusal(
        "layers with a state beyond keys and values",
        "has layers of conv",
        "lfm2 lfm2_moe",
        by_config=True,
        overrides={"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    ),
    Refusal(
        "layers that choose what they see",
        "has layers of (indexed|compressed_sparse|chunked|deepseek_sparse)_attention",
        "axk2 deepseek_v32 deepseek_v4 dots3_note_text glm_moe_dsa hy_v4 llama4_text",
        by_config=True,
    ),
    Refusal(
        "layers that choose what they see",
        "has layers of minimax_m3_sparse",
        "minimax_m3_vl_text",
        by_config=True,
        overrides={"layer_types": ["minimax_m3_sparse", "full_attention"], "num_hidden_layers": 2},
    ),
    Refusal(
        "more than text",
        "reads more than text",
        "dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_unified git got_ocr2 llama4 mllama moshi "
        "moss_transcribe_diarize phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp",
        by_config=True,
    ),
    Refusal("more than text", "reads more than text", "musicgen musicgen_melody", by_config=True, overrides=_MUSIC),
    Refusal(
        "drafts for a model of images and sound",
        "reads more than text",
        "gemma4_assistant gemma4_unified_assistant",
        by_config=True,
        overrides={"text_config": _DRAFT},
    ),
    Refusal(
        "no interface for attention in transformers",
        "attention of its own",
        "bailing_hybrid bamba bart big_bird bigbird_pegasus biogpt blenderbot blenderbot-small bloom blt codegen "
        "cpmant falcon falcon_h1 falcon_mamba gpt_neo gpt_neox_japanese gptj inkling2_text inkling_text jamba "
        "kimi_linear mamba mamba2 marian mbart megatron-bert mpt mvp nemotron_h olmo_hybrid openai-gpt pegasus "
        "plbart prophetnet qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp_text reformer rembert roformer "
        "rwkv stablelm trocr whisper xglm xlm xlnet xlstm zamba zamba2",
        by_config=True,
    ),
)
