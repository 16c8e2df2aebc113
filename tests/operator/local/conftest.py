"""Small real processes for pods, loopback ports, and the check that nothing is left behind."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

# An HTTP server whose answers to /ready and /health can be switched by files in its working directory: `unready` and
# `sick` make them 503. On SIGTERM it writes `terminated`, answers a little longer, as an engine does, and ends with 0.
SERVER = """
import http.server, os, signal, sys, threading
def term(*_):
    open("terminated", "w").close()
    threading.Timer(1, os._exit, (0,)).start()
signal.signal(signal.SIGTERM, term)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        broken = {"/ready": "unready", "/health": "sick"}.get(self.path, "")
        self.send_response(503 if broken and os.path.exists(broken) else 200)
        self.end_headers()
        self.wfile.write(os.environ.get("ANSWER", "hello").encode())
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


def python(code: str, *args: str) -> list[str]:
    """The argv of a Python program that needs no site packages."""
    return [sys.executable, "-I", "-S", "-u", "-c", code, *args]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    assert [p for p in psutil.Process().children(recursive=True) if p.pid not in before and alive(p.pid)] == []


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for a condition; TimeoutError if it never comes."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is in other processes
            await asyncio.sleep(0.01)


@pytest.fixture(name="until")
def until_fixture() -> Callable:
    return until


@pytest.fixture(name="alive")
def alive_fixture() -> Callable[[int], bool]:
    return alive


@pytest.fixture(name="python")
def python_fixture() -> Callable[..., list[str]]:
    return python


@pytest.fixture
def server_command(free_port: int) -> list[str]:
    """A server on $(POD_IP) and a free port."""
    return python(SERVER, "127.0.0.1", str(free_port))


@pytest.fixture
def server_code() -> str:
    return SERVER


@pytest.fixture
def pod_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pod"
    folder.mkdir()
    return folder
