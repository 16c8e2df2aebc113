"""A file on a web server as a seekable file, read by HTTP ranges: headers without the gigabytes after them."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final

from pagoda_engine.errors import FetchFailed
from pagoda_engine.source.web import Web, redact

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE: Final = 1 << 18  # bytes a request: the header of a small model in a few


class RemoteFile(io.RawIOBase):
    """The raw half of a buffered reader: `io.BufferedReader(file, buffer_size)` decides how much a request asks for."""

    def __init__(self, web: Web, url: str, size: int) -> None:
        super().__init__()
        self._web = web
        self._url = url
        self._position = 0
        self.size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError(f"seek to {start + offset}, before the start of {redact(self._url)}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), self.size - self._position)
        if count <= 0:
            return 0
        answer = self._web.read_range(self._url, self._position, count)
        if answer is None or answer[1] != self.size:
            raise FetchFailed(f"{redact(self._url)} changed while it was read; run the command again")
        view[: len(answer[0])] = answer[0]
        self._position += len(answer[0])
        return len(answer[0])


def open_remote(web: Web, url: str) -> io.BufferedReader | None:
    """A seekable file over HTTP, or None where the server knows no ranges (RFC 9110 leaves that to it)."""
    probe = web.read_range(url, 0, 1)
    return None if probe is None else io.BufferedReader(RemoteFile(web, url, probe[1]), _PIECE)
