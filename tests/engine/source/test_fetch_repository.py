"""`fetch` of a hub's repository, from the hub that the cluster scenarios use, and that hub against huggingface_hub."""

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from pagoda_engine.errors import AccessDenied, FetchFailed, ModelCorrupt, ModelNotFound, ModelUnsupported
from pagoda_engine.source import fetch, resolve

WANTED = {
    "config.json",
    "tokenizer.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
}


def test_the_hub_is_one_to_huggingface_hub_too(hub, tmp_path):
    """Listing, hashes, redirects, ETags and errors: what huggingface_hub downloads is what the folder holds."""
    api = HfApi(endpoint=hub.url, token=False)
    info = api.model_info("org/tiny", files_metadata=True)
    assert info.sha == hub.commit("org/tiny")
    source = hub.folder / "org" / "tiny"
    for sibling in info.siblings:
        assert sibling.size == (source / sibling.rfilename).stat().st_size
    [tree_entry] = [e for e in api.list_repo_tree("org/tiny", recursive=True) if e.path == "pytorch_model.bin"]
    assert tree_entry.lfs.sha256 == hashlib.sha256((source / "pytorch_model.bin").read_bytes()).hexdigest()
    folder = snapshot_download("org/tiny", local_dir=tmp_path / "copy", endpoint=hub.url, token=False)
    for name in ("config.json", "model-00001-of-00002.safetensors", "onnx/model.onnx"):
        assert (tmp_path / "copy" / name).read_bytes() == (source / name).read_bytes(), folder
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/tiny", revision="v9")
    with pytest.raises(GatedRepoError):
        api.hf_hub_download("org/gated", "config.json", local_dir=tmp_path / "gated")


def test_a_repository_comes_without_its_duplicates(hub, tmp_path):
    """Config, tokenizer and safetensors; no pickle, no ONNX, no second copy of the weights."""
    folder = fetch("hf://org/tiny", tmp_path / "cache", access=hub.access)
    assert {p.name for p in folder.iterdir()} == WANTED | {".pagoda.json"}
    for name in WANTED:
        assert (folder / name).read_bytes() == (hub.folder / "org" / "tiny" / name).read_bytes()
    hub.close()
    assert resolve("hf://org/tiny", tmp_path / "cache") == folder
    assert folder == tmp_path / "cache" / "hf" / "org" / "tiny" / "main"


def test_a_complete_repository_costs_no_request(hub, tmp_path):
    """Replicas of one service agree on the bytes that the first of them fetched, also when the branch moved on."""
    fetch("hf://org/tiny", tmp_path, access=hub.access)
    hub.asked.clear()
    (hub.folder / "org" / "tiny" / "config.json").write_text("{}")
    fetch("hf://org/tiny", tmp_path, access=hub.access)
    assert hub.asked == []


def test_a_commit_can_be_asked_for(hub, tmp_path):
    """A pinned commit has a folder of its own."""
    commit = hub.commit("org/tiny")
    assert fetch(f"hf://org/tiny@{commit}", tmp_path, access=hub.access) == tmp_path / "hf/org/tiny" / commit


@pytest.mark.parametrize("uri", ["hf://org/gguf", "hf://org/gguf/tiny-Q8_0.gguf"])
def test_a_repository_of_one_gguf_file_is_that_file(hub, tmp_path, uri):
    """Named or not, the model's path is the file, ready for a loader."""
    path = fetch(uri, tmp_path / "cache", access=hub.access)
    assert path.name == "tiny-Q8_0.gguf"
    assert path.read_bytes() == (hub.folder / "org" / "gguf" / "tiny-Q8_0.gguf").read_bytes()
    assert resolve(uri, tmp_path / "cache") == path


def test_several_gguf_files_must_be_told_apart(hub, tmp_path, make_gguf):
    """The error lists them, and shows the URI of one."""
    make_gguf(hub.folder / "org" / "gguf" / "tiny-F16.gguf")
    with pytest.raises(ModelNotFound, match=r"2 \.gguf files; name one, hf://org/gguf/tiny-F16\.gguf"):
        fetch("hf://org/gguf", tmp_path / "cache", access=hub.access)
    with pytest.raises(ModelNotFound, match=r"no such file; the \.gguf files are: tiny-F16\.gguf, tiny-Q8_0\.gguf"):
        fetch("hf://org/gguf/other.gguf", tmp_path / "cache", access=hub.access)


def test_pickled_weights_are_never_fetched(hub, tmp_path):
    """A repository that has nothing else is unsupported, and the message says why."""
    folder = hub.folder / "org" / "pickled"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelUnsupported, match=r"pickled weights .* are never loaded"):
        fetch("hf://org/pickled", tmp_path, access=hub.access)
    assert not [r for r in hub.asked if "resolve" in r.path]


@pytest.mark.parametrize(
    ("uri", "token", "error", "said"),
    [
        ("hf://org/gated", None, AccessDenied, r"gated; accept its terms at .*/org/gated and set HF_TOKEN"),
        ("hf://org/gated", "wrong", AccessDenied, r"gated; accept its terms .* with the account of HF_TOKEN"),
        ("hf://org/none", None, AccessDenied, r"does not exist or is private; check .*/org/none, or set HF_TOKEN"),
        ("hf://org/none", "s3cret", ModelNotFound, r"no repository 'org/none'"),
        ("hf://org/tiny@v9", None, ModelNotFound, r"no revision 'v9'"),
    ],
)
def test_a_refusal_says_what_to_do(hub, tmp_path, uri, token, error, said):
    """The hub's error codes are told apart as huggingface_hub does it."""
    with pytest.raises(error, match=said) as raised:
        fetch(uri, tmp_path, access=replace(hub.access, token=token))
    assert "s3cret" not in str(raised.value)


def test_a_token_opens_a_gated_repository(hub, tmp_path, monkeypatch):
    """From the environment, as in a pod."""
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    fetch("hf://org/gated", tmp_path, access=hub.access)
    assert {r.authorization for r in hub.asked if r.path.startswith("/org/gated/resolve")} == {"Bearer s3cret"}


def test_cut_lines_are_taken_up_where_they_broke(hub, tmp_path):
    """The weights of both shards arrive whole, though each connection broke once."""
    hub.weather.cut_after.extend([3000] * 4)
    folder = fetch("hf://org/tiny", tmp_path / "cache", access=hub.access)
    for name in WANTED:
        assert (folder / name).read_bytes() == (hub.folder / "org" / "tiny" / name).read_bytes()
    assert "bytes=3000-" in {r.range for r in hub.asked}


def test_a_damaged_file_is_fetched_again_once(hub, tmp_path):
    """Small files are checked by git's hash, large ones by SHA-256; a server that stays wrong is ModelCorrupt."""
    for repo, name in [("org/tiny", "model.safetensors.index.json"), ("org/gguf", "tiny-Q8_0.gguf")]:
        hub.weather.flip.append(5)
        fetch(f"hf://{repo}", tmp_path / "one", access=hub.access)
        assert not hub.weather.flip
        [fetched] = (tmp_path / "one" / "hf" / repo).rglob(name)
        assert fetched.read_bytes() == (hub.folder / repo / name).read_bytes()
    hub.weather.flip.extend([5] * 50)
    with pytest.raises(ModelCorrupt, match="promises, also when fetched again"):
        fetch("hf://org/gated", tmp_path / "two", access=replace(hub.access, token="s3cret"))
    with pytest.raises(ModelNotFound):
        resolve("hf://org/gated", tmp_path / "two")


def test_files_that_were_checked_are_not_fetched_again(hub, tmp_path):
    """A pull that failed at one file goes on with the others done."""
    name = "model-00002-of-00002.safetensors"
    large = hub.folder / "org" / "tiny" / name
    good = large.read_bytes()
    listing = hub._names(large)
    large.write_bytes(good[:-1] + b"?")
    status = large.stat()
    hub._hashes[(large, status.st_mtime_ns, status.st_size)] = listing  # the listing promises other bytes
    whole, deadline = hub.answer, time.monotonic() + 60

    def late(request):
        """The bad file comes when a good one has been checked."""
        while (
            name in request.path and not any((tmp_path / "cache").rglob("config.json")) and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        return whole(request)

    hub.answer = late
    with pytest.raises(ModelCorrupt):
        fetch("hf://org/tiny", tmp_path / "cache", access=hub.access)
    hub.answer = whole
    hub._hashes.clear()
    large.write_bytes(good)
    hub.asked.clear()
    done = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".part"}
    fetch("hf://org/tiny", tmp_path / "cache", access=hub.access)
    assert "config.json" in done
    assert not [r for r in hub.asked if r.method == "GET" and r.path.endswith("/config.json")]


def test_a_hub_that_is_down_is_fetch_failed(hub, tmp_path):
    """After patience is at its end."""
    hub.close()
    with pytest.raises(FetchFailed, match="gave up after 4 tries"):
        fetch("hf://org/tiny", tmp_path, access=hub.access)


def test_what_is_no_hub_is_fetch_failed(index, tmp_path):
    """HF_ENDPOINT that points at something else is told as such."""
    with pytest.raises((FetchFailed, ModelNotFound), match=r"HF_ENDPOINT|no repository"):
        fetch("hf://org/tiny", tmp_path, access=replace(index.access, hub=index.url))


def test_the_environment_names_the_hub(hub, tmp_path):
    """HF_ENDPOINT and HF_TOKEN reach a `pagoda pull` as they reach every tool of the hub."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pagoda_engine.cli",
            "pull",
            "hf://org/gated",
            "--download-dir",
            str(tmp_path / "cache"),
        ],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "s3cret"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(resolve("hf://org/gated", tmp_path / "cache"))
