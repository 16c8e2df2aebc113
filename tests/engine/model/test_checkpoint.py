"""A checkpoint that can't be served ends with one error that names the file and the fix."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    Gemma3Config,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
)

from pagoda_engine.contract import EngineArgs, Stage
from pagoda_engine.errors import ModelCorrupt, ModelNotFound, ModelUnsupported, OutOfMemory
from pagoda_engine.model.build import build_engine
from pagoda_engine.model.stored import SafetensorsFile
from pagoda_engine.sampling_params import SamplingParams
from pagoda_engine.source import safetensors


@pytest.fixture
def llama(tiny_model, tmp_path):
    """A copy of the tiny Llama that a test may damage."""
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_progress_goes_through_the_stages_in_order_and_counts_the_weights(llama):
    reports = []
    args = EngineArgs(str(llama), device="cpu", kv_cache_memory_bytes=1 << 20)
    build_engine(args, reports.append)
    stages = [report.stage for report in reports]
    assert list(dict.fromkeys(stages)) == [Stage.LOADING, Stage.WARMING, Stage.READY]
    percents = [report.percent for report in reports if report.stage is Stage.LOADING]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert len(percents) > 10


def test_a_cut_off_file_is_named(llama, build):
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors has \d+ bytes"):
        build(llama)


def test_a_damaged_header_is_named(llama, build):
    path = llama / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[8:12] = b"\0\0\0\0"
    path.write_bytes(content)
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors has a damaged"):
        build(llama)


def test_a_missing_weight_file_is_named(llama, build):
    (llama / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"model\.safetensors is missing"):
        build(llama)


def test_a_missing_shard_is_named(llama, build):
    (llama / "model.safetensors").rename(llama / "model-00001-of-00002.safetensors")
    names = {"model.norm.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ModelNotFound, match="00002-of-00002"):
        build(llama)


def test_an_index_that_points_outside_its_folder_is_not_followed(llama, build):
    (llama / "model.safetensors").rename(llama.parent / "outside.safetensors")
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(ModelNotFound, match="outside"):
        build(llama)


def test_a_missing_tensor_is_named(llama, build):
    tensors = load_file(llama / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelCorrupt, match=r"model\.safetensors has no tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"
    ):
        build(llama)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("model.norm.weight", torch.ones(3), r"'model\.norm\.weight' has the shape \(3,\) and should have \(64,\)"),
        (
            "model.layers.2.mlp.up_proj.weight",
            torch.ones(64, 8),
            r"'.*2\.mlp\.up_proj\.weight' has the shape \(64, 8\)",
        ),
        ("lm_head.weight", torch.ones(211, 64, dtype=torch.int8), r"'lm_head\.weight' has the dtype int8"),
        ("lm_head.weight", torch.ones(211, 64).to(torch.float8_e4m3fn), r"'lm_head\.weight' has the dtype float8"),
    ],
)
def test_a_tensor_that_the_model_cannot_take_is_named_with_its_file(llama, build, name, values, words):
    tensors = load_file(llama / "model.safetensors")
    save_file(tensors | {name: values}, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors: tensor " + words):
        build(llama)


def test_a_tensor_whose_bytes_are_not_those_of_its_shape_is_named(llama, build):
    path = llama / "model.safetensors"
    content = path.read_bytes()
    assert content.count(b'"shape":[211,64]') == 2
    path.write_bytes(content.replace(b'"shape":[211,64]', b'"shape":[210,64]', 1))
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors has a damaged .*'lm_head\.weight' has 54016 bytes"):
        build(llama)


def test_a_shard_without_a_tensor_that_the_index_promises_is_named_with_it(llama, build):
    tensors = load_file(llama / "model.safetensors")
    halves = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    weight_map = {}
    for number, half in enumerate(halves, 1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file(half, llama / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, name)
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    build(llama)
    lost = min(halves[1])
    save_file({name: values for name, values in halves[1].items() if name != lost}, llama / name)
    with pytest.raises(ModelCorrupt, match=rf"00002-of-00002\.safetensors lacks the tensor '{lost}'"):
        build(llama)


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_signal(llama):
    path = llama / "model.safetensors"
    with path.open("rb") as opened:
        header = safetensors.read_header(opened, str(path), path.stat().st_size)
    file = SafetensorsFile(path, torch.device("cpu"))
    last = file.stored(max(header, key=lambda tensor: tensor.start))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelCorrupt, match=rf"was cut off while it was read: tensor '{last.name}'"):
        last[...]
    file.close()


def test_an_expert_that_is_missing_is_named_with_its_parameter(tmp_path, build):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    config = MixtralConfig(**shape, num_attention_heads=2, num_key_value_heads=1, num_local_experts=4)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if "experts.2.w2" in name)
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors: 3 tensors such as .* make up '.*experts\.down_proj'"):
        build(tmp_path)


def test_a_damaged_config_is_named(llama, build):
    (llama / "config.json").write_text("{")
    with pytest.raises(ModelCorrupt, match=r"config\.json is damaged"):
        build(llama)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (T5Config(num_layers=1, d_model=8), "no decoder-only language model"),
        (Gemma3Config(), "Gemma3Config reads more than text"),
        (Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), "Lfm2Config has layers of conv"),
        (LlamaConfig(quantization_config={"quant_method": "awq"}), "quantised by awq"),
    ],
)
def test_a_model_that_the_engine_cannot_run_is_refused_by_name_before_its_weights_are_read(
    tmp_path, build, config, words
):
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupported, match=words):
        build(tmp_path)


def test_a_kind_of_model_that_nobody_knows_is_refused_by_name(llama, build):
    edit_config(llama, model_type="perceptron9000")
    with pytest.raises(ModelUnsupported, match="perceptron9000"):
        build(llama)


def test_another_decoder_than_llama_runs_by_structure(tmp_path, build, generate):
    GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=64).save_pretrained(tmp_path)
    engine = build(tmp_path, load_format="dummy")
    assert len(generate(engine, [[1, 2, 3]], SamplingParams(max_tokens=5, ignore_eos=True))[0]) == 5


def test_dummy_weights_need_only_a_config(tmp_path, tiny_model, build, generate):
    AutoConfig.from_pretrained(tiny_model("llama")).save_pretrained(tmp_path)
    engine = build(tmp_path, load_format="dummy")
    assert len(generate(engine, [[5, 6]], SamplingParams(max_tokens=4, ignore_eos=True))[0]) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"max_model_len": 257}, ModelUnsupported, "the model was made for 256; use 256 or less"),
        ({"kv_cache_memory_bytes": 3 * 2 * 2 * 8 * 4 * 100}, OutOfMemory, "use --max-model-len 96 or less"),
    ],
)
def test_arguments_that_cannot_work_are_refused_with_the_numbers_that_would(tiny_model, build, arguments, error, words):
    with pytest.raises(error, match=words):
        build(tiny_model("llama"), **arguments)


def test_eos_comes_from_config_and_generation_config(llama, build):
    (llama / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert build(llama).info.eos_token_ids == {2, 7, 9}


def test_the_data_type_is_the_checkpoints_unless_another_is_asked_for(tiny_model, build):
    """Seen in how many tokens fit the same memory."""
    memory = {"kv_cache_memory_bytes": 3 * 2 * 2 * 8 * 4 * 256}
    assert build(tiny_model("llama"), dtype="auto", **memory).info.num_blocks == 16
    assert build(tiny_model("llama"), dtype="bfloat16", **memory).info.num_blocks == 32
