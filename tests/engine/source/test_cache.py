"""The download directory: what counts as a model, what a full or unwritable disk says, and where the default is."""

import json
from pathlib import Path

import pytest

from pagoda_engine.errors import FetchFailed, ModelCorrupt, ModelNotFound, NoSpace
from pagoda_engine.source import default_download_dir, resolve
from pagoda_engine.source.cache import Manifest, Slot, disk_errors, require_space
from pagoda_engine.source.uri import parse

URI = "pypi://tiny-model@1.0/tiny_model/tiny.gguf"


@pytest.mark.parametrize(
    ("xdg", "expected"),
    [("/x", "/x/pagoda/models"), ("", "/home/me/.cache/pagoda/models"), ("relative", "/home/me/.cache/pagoda/models")],
)
def test_the_default_folder_is_the_users_cache(monkeypatch, xdg, expected):
    """As the XDG base directories have it: a relative path there is to be ignored."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert default_download_dir() == Path(expected)


def test_a_model_that_was_never_pulled_says_how_to_get_it(tmp_path):
    """The very command, with the folder that was asked."""
    with pytest.raises(ModelNotFound, match=f"run: pagoda pull {URI} --download-dir {tmp_path}$"):
        resolve(URI, tmp_path)


def test_local_paths_are_models_too(tmp_path, make_checkpoint, make_gguf):
    """A folder with config.json, a .gguf file, or a folder whose only weights are one."""
    make_checkpoint(tmp_path / "model")
    (tmp_path / "alone").mkdir()
    make_gguf(tmp_path / "alone" / "m.gguf")
    assert resolve(str(tmp_path / "model")) == tmp_path / "model"
    assert resolve(str(tmp_path / "alone")) == tmp_path / "alone" / "m.gguf"
    assert resolve(str(tmp_path / "alone" / "m.gguf")) == tmp_path / "alone" / "m.gguf"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nowhere", "no file or folder 'nowhere'"),
        ("Qwen/Qwen2.5-7B", "write hf://Qwen/Qwen2.5-7B"),
        ("{tmp}", "holds no config.json"),
        ("{tmp}/weights.bin", "is no .gguf file"),
        ("s3://bucket/model", "unknown scheme 's3'"),
    ],
)
def test_a_path_that_is_no_model_is_not_found(tmp_path, model, said):
    """Each with what to write in its place."""
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ModelNotFound, match=said):
        resolve(model.format(tmp=tmp_path))


def published(root: Path, uri: str = URI) -> Slot:
    """A slot with a complete model of one file."""
    slot = Slot.of(parse(uri), root)
    ready = slot.partial / "ready"
    ready.mkdir(parents=True)
    (ready / "tiny.gguf").write_bytes(b"12345")
    slot.publish(ready, Manifest(uri, "v", "tiny.gguf", {"tiny.gguf": 5}))
    return slot


def test_publishing_replaces_what_was_there(tmp_path):
    """A second publication of the same folder is the one that counts; no partial folder stays."""
    published(tmp_path)
    slot = published(tmp_path)
    assert slot.whole() == slot.folder / "tiny.gguf"
    assert not slot.partial.exists()


def test_a_missing_file_and_a_damaged_marker_are_corrupt(tmp_path):
    """resolve refuses both, whole() calls both incomplete, so that a pull mends them."""
    slot = published(tmp_path)
    (slot.folder / "tiny.gguf").unlink()
    with pytest.raises(ModelCorrupt, match=r"tiny\.gguf is missing; fetch it again with: pagoda pull"):
        resolve(URI, tmp_path)
    assert slot.whole() is None
    (slot.folder / ".pagoda.json").write_text("{")
    with pytest.raises(ModelCorrupt, match="is damaged"):
        resolve(URI, tmp_path)
    assert slot.whole() is None


def test_two_uris_of_one_folder_name_are_not_taken_for_each_other(tmp_path):
    """`a--b/m.gguf` and `a/b--m.gguf` share a folder; the marker tells which one is there."""
    one, other = "pypi://p@1/a--b/m.gguf", "pypi://p@1/a/b--m.gguf"
    assert Slot.of(parse(one), tmp_path).folder == Slot.of(parse(other), tmp_path).folder
    published(tmp_path, one)
    assert Slot.of(parse(one), tmp_path).whole()
    assert Slot.of(parse(other), tmp_path).whole() is None


def test_the_marker_is_readable_by_people(tmp_path):
    """It says which bytes these are."""
    document = json.loads((published(tmp_path).folder / ".pagoda.json").read_text())
    assert document == {"uri": URI, "version": "v", "model": "tiny.gguf", "files": {"tiny.gguf": 5}}


def test_a_disk_too_small_is_told_before_anything_is_fetched(tmp_path):
    """With the bytes needed, free and in all."""
    with pytest.raises(NoSpace, match=r"the model needs 1000000 TB more in .* free of .* \(spec\.cache\.size\)"):
        require_space(tmp_path, 10**18, "the model")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file that is always full")
def test_a_disk_that_fills_up_on_the_way_is_no_space(tmp_path):
    """ENOSPC from a write, at whatever moment."""
    with pytest.raises(NoSpace, match="is full"), disk_errors(tmp_path), Path("/dev/full").open("wb", 0) as file:
        file.write(b"x")


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="needs /sys, where nobody can make a folder")
def test_a_folder_that_cannot_be_written_is_told_with_the_fix():
    """A read-only volume, or one of another user."""
    slot = Slot.of(parse(URI), "/sys/pagoda")
    with (
        pytest.raises(FetchFailed, match=r"can't write /sys/.*--download-dir, or .*fsGroup"),
        slot.locked(lambda: None),
    ):
        pass


def test_a_download_dir_that_is_a_file_is_told(tmp_path):
    """The path, and that it must be a folder."""
    (tmp_path / "file").write_bytes(b"")
    slot = Slot.of(parse(URI), tmp_path / "file")
    with pytest.raises(FetchFailed, match="must be a folder"), slot.locked(lambda: None):
        pass
