"""A Hugging Face hub on this machine: folders of files, over the protocol that clients of the real hub speak.

    <folder>/<org>/<repo>/config.json, model.safetensors, ...

What is spoken is what huggingface_hub calls: model info and tree (with blob names and LFS hashes), `resolve` by HEAD
and GET with X-Repo-Commit and ETag, a redirect with X-Linked-Etag and X-Linked-Size to where large files lie, HTTP
ranges, and the X-Error-Code of each refusal. `python e2e/hub.py FOLDER` runs it; set HF_ENDPOINT to what it prints.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

_LARGE: Final = (".safetensors", ".gguf", ".bin", ".model")  # what a repository's .gitattributes gives to LFS
_PIECE: Final = 1 << 12  # bytes between two looks at the weather


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `body` is what a GET without Range would get."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was asked."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    range: str
    authorization: str
    accept: str


@dataclass
class Weather:
    """What goes wrong on the way. Each entry of a queue spoils one download: a GET of a file, or of the rest of one.

    Reads of a piece in the middle, by which clients look at headers, are spoiled only where `pieces_too` is set.
    """

    cut_after: deque[int] = field(default_factory=deque)  # bytes of the body, then the connection breaks
    refuse: deque[int] = field(default_factory=deque)  # statuses instead of the file
    flip: deque[int] = field(default_factory=deque)  # position in the whole file of a byte that arrives wrong
    bytes_per_second: float = float("inf")
    ranges: bool = True  # whether the server knows HTTP ranges
    pieces_too: bool = False


class FileServer:
    """A threaded HTTP server; `answer` decides what each request gets, `asked` keeps them, `weather` spoils some."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.weather = Weather()
        self.asked: list[Request] = []
        self._server = _Server((host, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="hub", daemon=True)
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def start(self) -> None:
        """Answer requests, in threads, until `close`."""
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and break the connections that are still open."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class ModelHub(FileServer):
    """A hub that serves a folder of `<org>/<repo>` folders.

    `gated` maps a repository to the token that may read its files; its listing is public, as on the real hub. Every
    repository has one branch, main, at the commit that its files' hashes make.
    """

    def __init__(
        self, folder: Path, *, gated: Mapping[str, str] | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(host, port)
        self.folder = folder
        self.gated = dict(gated or {})
        self._hashes: dict[tuple[Path, int, int], tuple[str, str]] = {}

    def answer(self, request: Request) -> Answer:
        path, authorization = request.path, request.authorization
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo, kind, revision = match[1], match[2], unquote(match[3] or "main")
            if (problem := self._problem(repo, revision, authorization)) is not None:
                return problem
            return _json(self._tree(repo) if kind == "tree" else self._info(repo, "blobs" in request.query))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], unquote(match[2]), unquote(match[3]), authorization)
        if match := re.fullmatch(r"/lfs/([^/]+/[^/]+)/[0-9a-f]{64}/(.+)", path):
            file = self.folder / match[1] / unquote(match[2])
            # The commit again, for clients that follow a HEAD here: the real place of large files is another host,
            # to which they don't.
            headers = {"ETag": f'"{self._names(file)[1]}"', "X-Repo-Commit": self.commit(match[1])}
            return Answer(200, file.read_bytes(), headers, is_file=True)
        return _refusal(404, "", "no such path")

    def _resolve(self, repo: str, revision: str, name: str, authorization: str) -> Answer:
        if (problem := self._problem(repo, revision, authorization)) is not None:
            return problem
        if (token := self.gated.get(repo)) is not None and authorization != f"Bearer {token}":
            return _refusal(403 if authorization else 401, "GatedRepo", f"Access to model {repo} is restricted.")
        file = self.folder / repo / name
        if not file.is_file():
            return _refusal(404, "EntryNotFound", "Entry not found")
        git_sha1, sha256 = self._names(file)
        headers = {"X-Repo-Commit": self.commit(repo)}
        if not name.endswith(_LARGE):
            return Answer(200, file.read_bytes(), {**headers, "ETag": f'"{git_sha1}"'}, is_file=True)
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(file.stat().st_size)}
        return Answer(302, b"", {**headers, **linked, "Location": f"{self.url}/lfs/{repo}/{sha256}/{name}"})

    def commit(self, repo: str) -> str:
        """The commit that `main` stands at: it changes with any file of the repository."""
        listing = "".join(f"{name} {self._names(file)[0]}\n" for name, file in self._files(repo))
        return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()

    def _problem(self, repo: str, revision: str, authorization: str) -> Answer | None:
        if not (self.folder / repo).is_dir() or ".." in repo:
            # The real hub does not tell strangers whether a private repository exists.
            return _refusal(404 if authorization else 401, "RepoNotFound", "Repository not found")
        if revision not in ("main", self.commit(repo)):
            return _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _info(self, repo: str, blobs: bool) -> dict[str, Any]:
        siblings = []
        for name, file in self._files(repo):
            sibling: dict[str, Any] = {"rfilename": name}
            if blobs:
                git_sha1, sha256 = self._names(file)
                sibling |= {"blobId": git_sha1, "size": file.stat().st_size}
                if name.endswith(_LARGE):
                    sibling["lfs"] = {"sha256": sha256, "size": file.stat().st_size, "pointerSize": 134}
            siblings.append(sibling)
        gated = "manual" if repo in self.gated else False
        return {"id": repo, "modelId": repo, "sha": self.commit(repo), "gated": gated, "siblings": siblings}

    def _tree(self, repo: str) -> list[dict[str, Any]]:
        entries = []
        for name, file in self._files(repo):
            git_sha1, sha256 = self._names(file)
            entry: dict[str, Any] = {"type": "file", "path": name, "size": file.stat().st_size, "oid": git_sha1}
            if name.endswith(_LARGE):
                entry["lfs"] = {"oid": sha256, "size": file.stat().st_size, "pointerSize": 134}
            entries.append(entry)
        return entries

    def _files(self, repo: str) -> list[tuple[str, Path]]:
        root = self.folder / repo
        return sorted((str(file.relative_to(root)), file) for file in root.rglob("*") if file.is_file())

    def _names(self, file: Path) -> tuple[str, str]:
        """Git's name of a file (of the LFS pointer, for a large one) and its SHA-256."""
        status = file.stat()
        key = (file, status.st_mtime_ns, status.st_size)
        if key not in self._hashes:
            data = file.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            if file.name.endswith(_LARGE):
                data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
            blob = f"blob {len(data)}\0".encode() + data
            self._hashes[key] = hashlib.sha1(blob, usedforsecurity=False).hexdigest(), sha256
        return self._hashes[key]


def _json(document: Any) -> Answer:
    return Answer(200, json.dumps(document).encode(), {"Content-Type": "application/json; charset=utf-8"})


def _refusal(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Message": message, "Content-Type": "application/json"}
    return Answer(status, json.dumps({"error": message}).encode(), headers | ({"X-Error-Code": code} if code else {}))


def _pace(weather: Weather, count: int) -> None:
    """Sleep as long as so many bytes take, by the weather of the moment: it may clear up meanwhile."""
    start = time.monotonic()
    while time.monotonic() - start < count / weather.bytes_per_second:
        time.sleep(min(0.02, count / weather.bytes_per_second))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], owner: FileServer) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for request in list(self._open):
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of an answer is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        owner, parts = self.server.owner, urlsplit(self.path)
        request = Request(
            method=self.command,
            path=parts.path,
            query=parse_qs(parts.query, keep_blank_values=True),
            range=self.headers.get("Range", ""),
            authorization=self.headers.get("Authorization", ""),
            accept=self.headers.get("Accept", ""),
        )
        owner.asked.append(request)
        answer = owner.answer(request)
        if not answer.is_file:
            self._write(answer.status, answer.body, answer.headers)
            return
        weather = owner.weather
        spoiled = self.command == "GET" and (weather.pieces_too or not re.fullmatch(r"bytes=\d+-\d+", request.range))
        if spoiled and weather.refuse:
            self._write(weather.refuse.popleft(), b"not now", {})
        else:
            self._write_file(answer, request.range, weather, spoiled)

    def _write_file(self, answer: Answer, wanted: str, weather: Weather, spoiled: bool) -> None:
        body = answer.body
        if spoiled and weather.flip:
            position = weather.flip.popleft()
            body = body[:position] + bytes([body[position] ^ 0xFF]) + body[position + 1 :]
        status, headers = 200, dict(answer.headers)
        if weather.ranges:
            headers["Accept-Ranges"] = "bytes"
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted):
                first, last = int(match[1]), min(int(match[2] or len(body) - 1), len(body) - 1)
                if first >= len(body):
                    self._write(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                    return
                status = 206
                headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
                body = body[first : last + 1]
        self._write(status, body, headers, weather if spoiled else None)

    def _write(self, status: int, body: bytes, headers: Mapping[str, str], weather: Weather | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        # A body that ends before the place of the next cut leaves that cut to a longer one.
        cuts: deque[int] = weather.cut_after if weather else deque()
        limit = cuts.popleft() if cuts and cuts[0] < len(body) else len(body)
        for start in range(0, min(limit, len(body)), _PIECE):
            piece = body[start : min(start + _PIECE, limit)]
            self.wfile.write(piece)
            if weather:
                _pace(weather, len(piece))
        if limit < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: `asked` has what was asked."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder of <org>/<repo> folders as a Hugging Face hub.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    with ModelHub(args.folder, host=args.host, port=args.port) as hub:
        print(f"export HF_ENDPOINT={hub.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
