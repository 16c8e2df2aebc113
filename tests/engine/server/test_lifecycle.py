"""How a server starts, stays idle, drains and dies: what its probes say, and what it leaves as its last words."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from pathlib import Path

import httpx
import psutil
import pytest
from e2e.held_stream import ANSWER, HeldStream

from pagoda_engine.contract import ExitCode, Metric, Progress, Stage

TEXT = "/v1/completions"
SLOW = {"model": "tiny", "prompt": "hello", "max_tokens": 480, "ignore_eos": True}
ENDLESS = {**SLOW, "max_tokens": 32000, "stream": True}
"""For a server of `endless_argv`."""


class Background(threading.Thread):
    """A request that runs while the test goes on."""

    def __init__(self, server, body):
        super().__init__(daemon=True)
        self.server, self.body, self.response = server, body, None
        self.start()

    def run(self):
        self.response = self.server.post(TEXT, self.body)

    def result(self) -> httpx.Response:
        self.join(120)
        assert self.response is not None
        return self.response


def running(server, *bodies) -> list[Background]:
    """Requests that the engine has begun, each of one prompt and one choice."""
    requests = [Background(server, body) for body in bodies]
    server.wait_for(lambda: server.metric(Metric.RUNNING) == len(bodies))
    return requests


def stage(server) -> tuple[int, Stage]:
    response = server.get("/ready")
    return response.status_code, Progress.from_json(response.content).stage


def test_probes_answer_before_the_model_is_loaded(launch, tiny_argv):
    """Listening comes first: /ready is 503 with the stage, /health 200, a request 503 with a time to come back."""
    server = launch(*tiny_argv, ready=False)
    assert stage(server)[0] == 503
    assert server.get("/health").status_code == 200
    assert server.metric("vllm:num_requests_waiting") == 0
    assert server.get("/v1/models").json()["data"][0]["id"] == "tiny"
    early = server.post(TEXT, SLOW)
    assert early.status_code == 503
    assert "retry-after" in early.headers
    stages = []

    def collect():
        code, now = stage(server)
        stages.extend([now] if now not in stages else [])
        return code == 200

    server.wait_for(collect)
    assert stages[0] == Stage.STARTING
    assert stages == sorted(stages, key=list(Stage).index)
    assert stages[-1] == Stage.READY


def test_a_taken_port_is_told_with_the_way_out(tiny_argv):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        argv = [sys.executable, "-m", "pagoda_engine.cli", "serve", *tiny_argv, "--port", str(port)]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ExitCode.PORT_IN_USE
    assert ended.stderr.count("\n") == 1
    assert f"port {port}" in ended.stderr
    assert "--port" in ended.stderr


def test_a_model_that_is_not_there_ends_with_its_own_code_and_one_line(launch, tmp_path):
    server = launch(str(tmp_path / "nothing"), ready=False)
    code, last = server.ended()
    assert code == ExitCode.MODEL_NOT_FOUND
    assert last.startswith("pagoda serve: error: ")
    assert "nothing" in last


@pytest.mark.parametrize("text", ["{% for %}", None])
def test_a_chat_template_that_can_not_be_used_is_an_error_of_use(tiny_argv, tmp_path, text):
    template = tmp_path / "template.jinja"
    if text is not None:
        template.write_text(text)
    argv = [sys.executable, "-m", "pagoda_engine.cli", "serve", *tiny_argv, "--chat-template", str(template)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ExitCode.USAGE
    assert str(template) in ended.stderr


def test_the_http_process_has_neither_torch_nor_transformers(server):
    """They live in the engine process; what serves HTTP stays small."""
    server.post(TEXT, {**SLOW, "max_tokens": 2})
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in mapped
    assert "libtorch" in Path(f"/proc/{server.engine_pid()}/maps").read_text()


def test_the_socket_between_the_processes_is_private(server):
    """It lies in a folder of this user alone, and is of this user alone itself."""
    sockets = [Path(word) for word in Path(f"/proc/{server.engine_pid()}/cmdline").read_text().split("\0")]
    path = next(path for path in sockets if path.name == "engine.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_idle_server_uses_next_to_no_processor(server):
    """Processor seconds, not wall time: below 2 % for the two processes together."""
    server.post(TEXT, {**SLOW, "max_tokens": 2})
    server.quiet()
    processes = [psutil.Process(server.process.pid), psutil.Process(server.engine_pid())]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    began = time.monotonic()
    time.sleep(6)  # processor times are counted in hundredths of a second
    spent = sum(sum(process.cpu_times()[:2]) for process in processes) - before
    assert spent / (time.monotonic() - began) < 0.02


def test_a_stuck_engine_turns_health_red_and_a_dead_one_ends_the_server(launch, endless_argv):
    """Stuck is work to do and no step for PAGODA_STEP_SECONDS; a stopped process stands for a hung device."""
    server = launch(*endless_argv, PAGODA_STEP_SECONDS="1")
    assert server.get("/health").status_code == 200
    with server.stopped():
        request = Background(server, {**SLOW, "max_tokens": 2})
        server.wait_for(lambda: server.get("/health").status_code == 503)
        assert stage(server) == (503, Stage.FAILED)
    server.wait_for(lambda: server.get("/health").status_code == 200)
    assert request.result().status_code == 200

    plain, streamed = running(server, {**ENDLESS, "stream": False}, ENDLESS)
    os.kill(server.engine_pid(), signal.SIGKILL)
    error = plain.result()
    assert error.status_code == 500
    assert "SIGKILL" in error.json()["error"]["message"]
    last = server.events(streamed.result().text)[-1]
    assert "SIGKILL" in last["error"]["message"]
    code, line = server.ended()
    assert code == ExitCode.ENGINE_DIED
    assert line.startswith("pagoda serve: error: the engine process was killed by SIGKILL")


def test_the_engine_ends_with_its_server_even_when_that_is_killed(launch, tiny_argv):
    server = launch(*tiny_argv, ready=False)
    engine = psutil.Process(server.engine_pid())
    server.wait_for(lambda: "torch" in server.get("/ready").text)  # from here on it is the engine's own program
    server.process.kill()
    engine.wait(30)
    assert not engine.is_running()


def test_sigterm_lets_requests_end_and_the_exit_code_is_0(launch, tiny_argv):
    server = launch(*tiny_argv)
    with server.stopped():
        request = Background(server, SLOW)
        server.wait_for(lambda: server.metric(Metric.WAITING) == 1)
        server.process.terminate()
        server.wait_for(lambda: stage(server) == (503, Stage.DRAINING))
    answer = request.result()
    assert answer.json()["usage"]["completion_tokens"] == 480
    assert server.ended()[0] == ExitCode.OK


def test_after_sigterm_requests_are_taken_until_the_delay_is_over(launch, tiny_argv):
    """Not ready at once; still serving, with `Connection: close`, while endpoints forget the pod; then refusing."""
    server = launch(*tiny_argv, "--drain-delay", "600")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/health").headers.get("connection") != "close"
        server.process.terminate()
        server.wait_for(lambda: stage(server) == (503, Stage.DRAINING))
        assert server.get("/health").status_code == 200
        late = client.post(TEXT, json={**SLOW, "max_tokens": 3})
        assert (late.status_code, late.headers["connection"]) == (200, "close")
    server.process.send_signal(signal.SIGINT)
    assert server.ended()[0] == ExitCode.OK


def test_what_does_not_end_in_time_is_told_so(launch, endless_argv):
    server = launch(*endless_argv, "--shutdown-timeout", "0")
    (request,) = running(server, ENDLESS)
    server.process.terminate()
    last = server.events(request.result().text)[-1]
    assert "shut down" in last["error"]["message"]
    assert server.ended()[0] == ExitCode.OK


def left(server) -> str:
    """What a server says that it waits for, once it is on its way out."""

    def look() -> str | None:
        progress = Progress.from_json(server.get("/ready").content)
        return progress.message if progress.stage == Stage.DRAINING else None

    return server.wait_for(look)


@pytest.fixture
def unread():
    """Begins a stream that nobody reads; the engine has done its part of it."""
    with contextlib.ExitStack() as opened:

        def begin(server) -> HeldStream:
            url = httpx.URL(server.url)
            stream = opened.enter_context(HeldStream(url.host, url.port, "tiny"))
            server.quiet()
            return stream

        yield begin


def test_a_stream_is_waited_for_as_long_as_it_takes_and_an_idle_server_goes_at_once(launch, tiny_argv, unread):
    """The same long patience for both: what ends a drain is the last byte of the last answer, and no clock."""
    idle, busy = (launch(*tiny_argv, "--shutdown-timeout", "600") for _ in range(2))
    stream = unread(busy)
    for server in (idle, busy):
        server.process.terminate()
    assert idle.ended()[0] == ExitCode.OK
    assert left(busy) == "1 request left"
    assert stream.rest() == ["length"] * ANSWER["n"]
    assert busy.ended()[0] == ExitCode.OK


def test_a_client_that_never_reads_is_waited_for_until_the_time_is_over(launch, tiny_argv, unread):
    """Its answer is complete and nobody takes it: told as one request left, and then given up."""
    server = launch(*tiny_argv, "--shutdown-timeout", "3")
    stream = unread(server)
    server.process.terminate()
    assert left(server) == "1 request left"
    assert server.ended()[0] == ExitCode.OK
    with pytest.raises((OSError, HTTPException)):
        stream.rest()


def test_an_engine_that_is_stuck_is_not_waited_for(launch, endless_argv):
    """No probe would end it once it is on its way out; its clients learn of it."""
    server = launch(*endless_argv, "--shutdown-timeout", "600", PAGODA_STEP_SECONDS="1")
    (request,) = running(server, ENDLESS)
    os.kill(server.engine_pid(), signal.SIGSTOP)
    server.process.terminate()
    last = server.events(request.result().text)[-1]
    assert "shut down" in last["error"]["message"]
    assert server.ended()[0] == ExitCode.OK


def test_sigint_ends_a_server_that_is_still_loading(launch, tiny_argv):
    server = launch(*tiny_argv, ready=False)
    engine = psutil.Process(server.engine_pid())
    server.process.send_signal(signal.SIGINT)
    assert server.ended()[0] == ExitCode.OK
    assert not engine.is_running()


WRONG_KEYS = [{}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}, {"authorization": "Basic s3cret"}]


def test_a_key_guards_the_api_and_leaves_probes_open(launch, tiny_argv):
    server = launch(*tiny_argv, ready=False, PAGODA_API_KEY="s3cret")
    for headers in WRONG_KEYS:
        refused = httpx.post(server.url + TEXT, json=SLOW, headers=headers, timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    allowed = httpx.get(server.url + "/v1/models", headers={"authorization": "Bearer s3cret"}, timeout=60)
    assert allowed.status_code == 200
    assert 401 not in [server.get(path).status_code for path in ("/health", "/ready", "/metrics", "/version")]
    connection = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), timeout=30)
    # A Host that holds a path must not make the guarded path look like an open one.
    connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x/health?\r\nConnection: close\r\n\r\n")
    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401")
    connection.close()


def test_every_metric_of_the_contract_is_shown_with_its_labels(server):
    server.post(TEXT, {**SLOW, "max_tokens": 3})
    text = server.get("/metrics").text
    for metric in Metric:
        assert f"# TYPE {metric}" in text or f"# TYPE {metric}_total" in text, metric
        labels = {"engine": "0"} if metric == Metric.CACHE_CONFIG else {"engine": "0", "model_name": "tiny"}
        for suffix in ("", "_total", "_count"):
            if f"\n{metric}{suffix}{{" in text:
                server.metric(f"{metric}{suffix}", **labels)
                break
        else:
            pytest.fail(f"{metric} has no sample")
    assert server.metric("vllm:inter_token_latency_seconds_bucket", le="0.001") >= 0
    assert server.metric("http_requests_total", handler="/v1/completions", status="200") >= 1


def test_an_address_of_a_client_never_becomes_a_label(server):
    server.get("/surprise/1")
    assert "surprise" not in server.get("/metrics").text
    assert server.metric("http_requests_total", handler="other", status="404") >= 1


def test_the_version_is_told(server):
    assert set(json.loads(server.get("/version").content)) == {"version"}
