"""A tiny HTTP server for the probes of a process that has no server yet."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from pagoda_engine.contract import HEALTH_PATH, READY_PATH, Progress
from pagoda_engine.errors import PortInUse


class ProgressServer:
    """Answers /ready with 503 and the `progress` of now, /health with 200, from threads of its own.

    Raises PortInUse where the address can't be listened on.
    """

    def __init__(self, host: str, port: int, progress: Progress) -> None:
        self.progress = progress
        try:
            self._server = _Server(host, port, self)
        except (OSError, OverflowError) as error:
            fix = "choose another --host or --port, or end the process that listens there"
            raise PortInUse(f"can't listen on {host} port {port}: {error}; {fix}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="progress", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, owner: ProgressServer) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.owner = owner
        super().__init__((host, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path == READY_PATH:
            self._answer(503, self.server.owner.progress.to_json())
        elif self.path == HEALTH_PATH:
            self._answer(200, "{}")
        else:
            self._answer(404, '{"error": "the model is being pulled; only /ready and /health answer"}')

    def _answer(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes ask every second; the log is for the download."""
