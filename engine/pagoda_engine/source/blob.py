"""A file on the network whose hash is known beforehand: fetched until it is what was promised."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pagoda_engine.errors import ModelCorrupt
from pagoda_engine.source.cache import disk_errors
from pagoda_engine.source.meter import Meter
from pagoda_engine.source.web import Web, redact

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A file to fetch. `size` is None where only the download tells; one of the two hashes is set.

    `git_sha1` is the name that git gives a blob: SHA-1 over `blob <size>\\0` and the bytes. Hubs name small files so.
    """

    url: str
    name: str
    size: int | None
    sha256: str = ""
    git_sha1: str = ""

    def is_in(self, file: IO[bytes]) -> bool:
        """Whether a file, read from its start, has exactly these bytes."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        git_start = f"blob {size}\0".encode()
        digest = hashlib.sha256() if self.sha256 else hashlib.sha1(git_start, usedforsecurity=False)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest() == (self.sha256 or self.git_sha1)

    def corrupt(self) -> ModelCorrupt:
        """The error for a second try that was wrong too: not the line, but the server has other bytes."""
        return ModelCorrupt(
            f"{redact(self.url)} has other bytes than its hash {self.sha256 or self.git_sha1} promises, "
            "also when fetched again; tell the server's owner, or use another index or hub"
        )


def read_blob(web: Web, blob: Blob) -> bytes:
    """A small blob's bytes, checked. Wrong bytes get one more chance."""
    for _ in range(2):
        body = web.get(blob.url).body
        if blob.is_in(io.BytesIO(body)):
            return body
    raise blob.corrupt()


def download_blob(web: Web, blob: Blob, path: Path, root: Path, meter: Meter) -> None:
    """Fetch a blob into a file, resuming what is there. Wrong bytes get one more chance, from the start.

    `root` is the download directory, for messages about its disk.
    """
    with disk_errors(root):
        if path.exists():
            meter.have(path.stat().st_size)
        for wording in ("fetching it again", "giving up"):
            web.download(blob.url, path, size=blob.size, on_bytes=meter.add)
            meter.say(f"checking {blob.name}")
            with path.open("rb") as file:
                if blob.is_in(file):
                    return
            meter.add(-path.stat().st_size)
            path.unlink()
            meter.say(f"{blob.name} arrived damaged; {wording}")
    raise blob.corrupt()
