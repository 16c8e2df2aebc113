"""HTTP as downloads need it: patient with networks, resuming, and with one error tree.

`httpx` underneath: proxies come from HTTPS_PROXY and NO_PROXY, trusted certificates from the system's store
(SSL_CERT_FILE and SSL_CERT_DIR are honoured), or from certifi's bundle on a system that has none.
"""

from __future__ import annotations

import os
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

import certifi
import httpx

from pagoda_engine.errors import AccessDenied, FetchFailed, ModelNotFound, PagodaError

_TIMEOUT: Final = httpx.Timeout(30.0, read=60.0)
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that another try may cure


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is tried while no byte arrives, and the pauses between: doubling, with jitter, seconds."""

    attempts: int = 6
    first_pause: float = 1.0
    longest_pause: float = 20.0

    def pause(self, failures: int, asked: float = 0.0) -> float:
        """The pause after so many failures in a row; `asked` is the server's Retry-After."""
        pause = min(self.first_pause * 2.0 ** (failures - 1), self.longest_pause)
        return max(min(asked, self.longest_pause), pause * random.uniform(0.75, 1.0))


@dataclass(frozen=True, slots=True)
class Page:
    """A small document: an index page, a config."""

    url: str
    content_type: str
    body: bytes


class _Passing(Exception):
    """A failure that another try may cure."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass
class _Trial:
    """The failures in a row of one request."""

    patience: Patience
    url: str
    failures: int = field(default=0)

    def failed(self, error: _Passing) -> None:
        """Pause before the next try. Raises FetchFailed when patience is at its end."""
        self.failures += 1
        if self.failures >= self.patience.attempts:
            raise FetchFailed(
                f"{self.url}: {error}; gave up after {self.failures} tries, "
                "check the network, HTTPS_PROXY and the server, then run the command again"
            )
        time.sleep(self.patience.pause(self.failures, error.retry_after))


def refusal(response: httpx.Response) -> PagodaError:
    """The error that a refusing answer stands for, in words that fit any server."""
    status, url = response.status_code, redact(str(response.url))
    if status in (401, 403):
        return AccessDenied(f"{url} answered HTTP {status}; give credentials that may read it")
    if status in (404, 410):
        return ModelNotFound(f"{url} answered HTTP {status}; check the URI")
    return FetchFailed(f"{url} answered HTTP {status}, which another try would not change")


class Web:
    """A client for one pull, usable from several threads.

    `headers` go to the first host only: httpx takes the Authorization off a redirect to another one. `refuse` words
    the errors for a kind of server.
    """

    def __init__(
        self,
        patience: Patience,
        headers: Mapping[str, str] | None = None,
        refuse: Callable[[httpx.Response], PagodaError] = refusal,
    ) -> None:
        self.patience = patience
        self._refuse = refuse
        self._client = httpx.Client(
            verify=_trust(),
            follow_redirects=True,
            timeout=_TIMEOUT,
            headers={"User-Agent": "pagoda", **(headers or {})},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def get(self, url: str, *, accept: str = "*/*", limit: int = 64 << 20) -> Page:
        """Fetch a document of at most `limit` bytes."""
        trial = _Trial(self.patience, redact(url))
        while True:
            try:
                with self._stream(url, {"Accept": accept}) as response:
                    body = bytearray()
                    for chunk in response.iter_bytes():
                        body += chunk
                        if len(body) > limit:
                            raise FetchFailed(f"{redact(url)} is larger than {limit} bytes; it is no index or config")
                    return Page(str(response.url), response.headers.get("Content-Type", ""), bytes(body))
            except _Passing as error:
                trial.failed(error)

    def read_range(self, url: str, start: int, count: int) -> tuple[bytes, int] | None:
        """Bytes `start` to `start + count` (fewer at the end) and the size of the whole, or None without Range."""
        trial = _Trial(self.patience, redact(url))
        headers = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
        while True:
            try:
                with self._stream(url, headers) as response:
                    if response.status_code != 206:
                        return None
                    first, total = _content_range(response)
                    body = b"".join(response.iter_raw())
                    if first != start or len(body) != min(count, total - start):
                        raise _Passing(f"answered {len(body)} bytes from {first} for {headers['Range']}")
                    return body, total
            except _Passing as error:
                trial.failed(error)

    def download(self, url: str, path: Path, *, size: int | None, on_bytes: Callable[[int], None]) -> None:
        """Fetch a URL into a file, from where the file ends. OSError passes: the disk is the caller's.

        `on_bytes` gets the count of each piece that is written, negative where earlier bytes are thrown away because
        the server does not resume. `size`, where known, tells a connection that was cut from one that ended.
        """
        trial = _Trial(self.patience, redact(url))
        while True:
            have = path.stat().st_size if path.exists() else 0
            if size is not None and have == size:
                return
            if size is not None and have > size:
                os.truncate(path, 0)
                on_bytes(-have)
                have = 0
            try:
                self._continue(url, path, have, size, on_bytes)
                return
            except _Passing as error:
                if path.exists() and path.stat().st_size > have:
                    trial.failures = 0  # bytes did arrive: a bad line, not a dead one
                trial.failed(error)

    def _continue(self, url: str, path: Path, have: int, size: int | None, on_bytes: Callable[[int], None]) -> None:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._stream(url, headers) as response, path.open("ab") as file:
            resumed = response.status_code == 206 and _content_range(response)[0] == have
            if have and not resumed:
                file.truncate(0)
                on_bytes(-have)
                have = 0
            if response.status_code == 416:  # the file had more than the server has: from the start, then
                raise _Passing("the server can't resume this download")
            for chunk in response.iter_raw():  # as it comes in: what is held back to fill a chunk is lost with the line
                file.write(chunk)
                file.flush()  # so that a killed process leaves what it fetched
                have += len(chunk)
                on_bytes(len(chunk))
        if size is not None and have < size:
            raise _Passing(f"the connection ended after {have} of {size} bytes")

    @contextmanager
    def _stream(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code in _PASSING:
                    raise _Passing(f"HTTP {response.status_code}", _retry_after(response))
                if response.is_error and response.status_code != 416:
                    raise self._refuse(response)
                yield response
        except httpx.TransportError as error:
            raise _Passing(str(error) or type(error).__name__) from error
        except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise FetchFailed(f"{redact(url)}: {error}; check the address") from error


def redact(url: str) -> str:
    """A URL for messages: without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _content_range(response: httpx.Response) -> tuple[int, int]:
    """First byte and whole size of a 206 answer (RFC 9110, 14.4)."""
    value = response.headers.get("Content-Range", "")
    unit, _, rest = value.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal() or not total.isdecimal():
        raise FetchFailed(f"{redact(str(response.url))} answered a range with Content-Range {value!r}")
    return int(first), int(total)


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        context.load_verify_locations(certifi.where())
    return context
