"""A file on the network whose hash is known beforehand: fetched until it is what was promised."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

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

    def is_at(self, path: Path) -> bool:
        """Whether a file has exactly these bytes."""
        if not self.sha256:
            digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        else:
            digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == (self.sha256 or self.git_sha1)


def download_blob(web: Web, blob: Blob, path: Path, root: Path, meter: Meter) -> None:
    """Fetch a blob into a file, resuming what is there. Wrong bytes get one more chance, from the start.

    `root` is the download directory, for messages about its disk. Raises ModelCorrupt where the second try is wrong
    too: then it is not the line, but the server, that has other bytes than were promised.
    """
    with disk_errors(root):
        if path.exists():
            meter.have(path.stat().st_size)
        for wording in ("fetching it again", "giving up"):
            web.download(blob.url, path, size=blob.size, on_bytes=meter.add)
            meter.say(f"checking {blob.name}")
            if blob.is_at(path):
                return
            meter.add(-path.stat().st_size)
            path.unlink()
            meter.say(f"{blob.name} arrived damaged; {wording}")
    raise ModelCorrupt(
        f"{redact(blob.url)} has other bytes than its hash {blob.sha256 or blob.git_sha1} promises, "
        "also when fetched again; tell the server's owner, or use another index or hub"
    )
