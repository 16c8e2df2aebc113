"""The shapes of the models that are measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a decoder: what its cost follows from."""

    kind: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    dim: int
    vocabulary: int
    tied: bool

    def config(self) -> dict[str, object]:
        """transformers' config of it."""
        architecture = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[self.kind]
        return {
            "architectures": [architecture],
            "model_type": self.kind,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.dim,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "dtype": "bfloat16",
            "bos_token_id": 0,
            "eos_token_id": 1,
        }

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with: all but norms and an embedding that is not the head too."""
        attention = self.hidden * self.dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.vocabulary * self.hidden

    def cache_bytes(self, itemsize: int) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.dim * itemsize

    def attention_operations(self, tokens: int) -> float:
        """Of a prompt of so many tokens: two products for each pair of tokens that see each other, in every layer."""
        return 4 * self.layers * self.heads * self.dim * tokens * (tokens + 1) / 2


LLAMA_8B = Shape("llama", 4096, 14336, 32, 32, 8, 128, 128256, tied=False)
QWEN3_600M = Shape("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, tied=True)
TINY = Shape("qwen3", 64, 96, 2, 4, 2, 16, 256, tied=True)
