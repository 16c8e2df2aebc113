"""Any causal language model of transformers, shrunk to two layers with random weights."""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

VOCABULARY: Final = 211

# Every name by which configs call such a number.
_SIZES: Final[dict[float, str]] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input",
    256: "max_position_embeddings n_positions max_seq_len n_ctx",
    96: "intermediate_size intermediate_size_mlp prefix_dense_intermediate_size ffn_dim n_inner ffn_hidden_size dff "
    "shared_expert_intermediate_size shared_intermediate_size",
    64: "hidden_size n_embd d_model word_embed_proj_dim embedding_size",
    32: "moe_intermediate_size expert_ffn_hidden_size expert_intermediate_size hidden_size_per_layer_input",
    24: "q_lora_rank",
    16: "head_dim global_head_dim attention_head_dim kv_channels kv_lora_rank qk_nope_head_dim",
    12: "v_head_dim",
    8: "qk_rope_head_dim",
    7: "sliding_window",
    4: "num_attention_heads n_head n_heads num_experts num_local_experts n_routed_experts moe_num_experts",
    2: "num_hidden_layers n_layer n_layers num_layers num_key_value_heads num_global_key_value_heads num_kv_heads "
    "kv_n_heads num_experts_per_tok moe_topk moe_k top_k_experts num_experts_per_token moe_top_k experts_per_token "
    "eos_token_id",
    1: "n_group topk_group num_expert_group first_k_dense_replace bos_token_id max_window_layers",
    0.2: "initializer_range init_std",  # large: outputs differ clearly, and a wrong cache shows in the first tokens
    0: "pad_token_id",
}
_SMALL: Final = {name: size for size, names in _SIZES.items() for name in names.split()}


def config(model_type: str, **overrides: Any) -> PreTrainedConfig:
    """The default config with small numbers, and one layer of each kind that it has, two at the least."""
    kind = CONFIG_MAPPING[model_type]
    default = kind().to_dict()
    small: dict[str, Any] = {name: size for name, size in _SMALL.items() if name in default}
    if "qk_rope_head_dim" in default:  # keys and values out of one latent vector: each head has its own
        small |= {"head_dim": 8, "num_key_value_heads": 4}
    if "use_sliding_window" in default:
        small["use_sliding_window"] = True
    kinds = list(dict.fromkeys(default.get("layer_types") or ()))
    if len(kinds) > 1:
        small |= {"layer_types": kinds, "num_hidden_layers": len(kinds)}
    return kind(**small | overrides)


def model(config: PreTrainedConfig) -> PreTrainedModel:
    """Random weights, all of which matter: norms, biases and sinks too are moved from where they start."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        made = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config, attn_implementation="eager").float()
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        made.tie_weights()
    return made.eval()
