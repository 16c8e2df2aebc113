"""GGUF files that are read directly give the weights and the config that transformers gives."""

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

from pagoda_engine.errors import ModelCorrupt
from pagoda_engine.model import gguf_model
from pagoda_engine.model.checkpoint import Checkpoint
from pagoda_engine.model.loader import load
from pagoda_engine.model.parallel.group import Group
from pagoda_engine.source.gguf import read_header

SHAPE = {"embedding_length": 64, "feed_forward_length": 96, "block_count": 2, "context_length": 128}
HEADS, KV_HEADS, VOCABULARY = 8, 2, 96
F32, F16, BF16 = (gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16"))
Q4_0, Q4_1, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "Q8_0"))


def write(path, architecture, kind, *, head_dim=8, tied=False, extra=None, leave_out=()):
    """A whole small GGUF file with random weights, as llama.cpp's converter lays it out."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in SHAPE.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_name("tiny")
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50_000.0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_vocab_size(VOCABULARY)
    for key, value in (extra or {}).items():
        writer.add_float32(key, value)
    generator = np.random.default_rng(0)
    for name, shape in tensors(architecture, head_dim, tied).items():
        if name in leave_out:
            continue
        values = generator.standard_normal(shape).astype(np.float32)
        used = F32 if len(shape) == 1 else kind
        if used is F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quantize(values, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(architecture, head_dim, tied):
    width, inner = SHAPE["embedding_length"], SHAPE["feed_forward_length"]
    shapes = {"token_embd.weight": (VOCABULARY, width), "output_norm.weight": (width,)}
    if not tied:
        shapes["output.weight"] = (VOCABULARY, width)
    for layer in range(SHAPE["block_count"]):
        parts = {
            "attn_norm.weight": (width,),
            "ffn_norm.weight": (width,),
            "attn_q.weight": (HEADS * head_dim, width),
            "attn_k.weight": (KV_HEADS * head_dim, width),
            "attn_v.weight": (KV_HEADS * head_dim, width),
            "attn_output.weight": (width, HEADS * head_dim),
            "ffn_gate.weight": (inner, width),
            "ffn_up.weight": (inner, width),
            "ffn_down.weight": (width, inner),
        }
        if architecture == "qwen2":
            parts |= {f"attn_{name}.bias": (heads * head_dim,) for name, heads in (("q", 8), ("k", 2), ("v", 2))}
        if architecture == "qwen3":
            parts |= {"attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in parts.items()}
    return shapes


def header_of(path):
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


@pytest.mark.parametrize("kind", [F32, F16, BF16, Q4_0, Q4_1, Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("architecture", "tied"), [("llama", False), ("llama", True), ("qwen2", True), ("qwen3", False)]
)
def test_weights_and_config_are_those_that_transformers_reads(tmp_path, architecture, tied, kind):
    # transformers takes a Qwen3 of any other head size for one of 128.
    head_dim = 128 if architecture == "qwen3" else 8
    path = write(tmp_path / "tiny.gguf", architecture, kind, tied=tied, head_dim=head_dim)
    checkpoint = Checkpoint.at(path)
    config = gguf_model.read_config(header_of(path))
    assert config is not None
    percents = []
    model = load(
        checkpoint,
        config,
        dtype=torch.float32,
        device=torch.device("cpu"),
        dummy=False,
        on_percent=percents.append,
    )
    reference = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert percents[-1] == 100
    names = "max_position_embeddings rms_norm_eps rope_parameters bos_token_id eos_token_id tie_word_embeddings"
    expected = AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    for name in names.split():
        assert getattr(config, name) == getattr(expected, name), name
    frequencies = dict(reference.named_buffers())
    assert all(torch.equal(values, frequencies[name]) for name, values in model.named_buffers())


def test_what_the_reader_is_not_sure_of_is_left_to_transformers(tmp_path):
    scaled = write(tmp_path / "scaled.gguf", "llama", F32, extra={"llama.rope.scaling.factor": 8.0})
    assert gguf_model.read_config(header_of(scaled)) is None
    other = write(tmp_path / "other.gguf", "gemma", F32)
    assert gguf_model.read_config(header_of(other)) is None


def test_a_missing_tensor_is_named(tmp_path, build):
    path = write(tmp_path / "tiny.gguf", "llama", F32, leave_out=["blk.1.ffn_up.weight"])
    with pytest.raises(ModelCorrupt, match=r"layers\.1\.mlp\.up_proj\.weight"):
        build(path)


def test_a_cut_off_file_is_named(tmp_path, build):
    path = write(tmp_path / "tiny.gguf", "llama", F32)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelCorrupt, match=r"tiny\.gguf: .* was cut off"):
        build(path)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_ranks_hold_parts_of_what_one_process_holds(tmp_path, architecture):
    """Rows of queries come in llama.cpp's order and are split in transformers'."""
    path = write(tmp_path / "tiny.gguf", architecture, Q8_0, tied=True)
    checkpoint = Checkpoint.at(path)

    def loaded(group=None):
        options = {"dtype": torch.float32, "device": torch.device("cpu"), "dummy": False, "on_percent": lambda _: None}
        return load(checkpoint, checkpoint.config(), **options, group=group).state_dict()

    whole = loaded()
    parts = [loaded(Group(rank, 2, tmp_path, id)) for rank in range(2)]
    for name, dim in (("self_attn.q_proj", 0), ("self_attn.k_proj", 0), ("self_attn.o_proj", 1), ("mlp.down_proj", 1)):
        name = f"model.layers.1.{name}.weight"
        assert torch.equal(torch.cat([part[name] for part in parts], dim=dim), whole[name]), name
    rows = VOCABULARY // 2
    embedding = torch.cat([part["model.embed_tokens.weight"][:rows] for part in parts])
    assert torch.equal(embedding, whole["model.embed_tokens.weight"])
