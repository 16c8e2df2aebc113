"""Many clients at once: all are answered, none disturbs another, and nothing is left behind."""

import asyncio
import contextlib
import json
import socket

import httpx
import pytest

from pagoda_engine.contract import Metric

TEXT = "/v1/completions"
LONG = {"model": "tiny", "prompt": "hello", "max_tokens": 400, "ignore_eos": True, "temperature": 0, "stream": True}
ENDLESS = {**LONG, "max_tokens": 32000}
"""For a server of `endless_argv`."""


def ask(server, body) -> socket.socket:
    """A request by hand, so that the test decides what is read and when."""
    connection = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), timeout=60)
    content = json.dumps(body).encode()
    head = (
        f"POST {TEXT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def open_stream(server, body) -> socket.socket:
    """Returns after the first bytes came, which is before the engine has begun."""
    connection = ask(server, body)
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


@pytest.fixture(scope="module")
def endless(launcher_type, endless_argv, tmp_path_factory):
    launcher = launcher_type(tmp_path_factory.mktemp("endless"))
    yield launcher(*endless_argv)
    launcher.close()


async def test_64_streams_share_16_places_and_all_end_well(server):
    """They wait, which the gauges show, run 16 at a time, and each gets the text that it gets alone."""
    prompts = [f"client {index} says" for index in range(64)]
    async with httpx.AsyncClient(base_url=server.url, timeout=240, limits=httpx.Limits(max_connections=80)) as client:

        async def complete(prompt, **options):
            body = {**LONG, "prompt": prompt, "max_tokens": 160, **options}
            response = await client.post(TEXT, json=body)
            assert response.status_code == 200
            if not body["stream"]:
                return response.json()["choices"][0]["text"], response.json()["choices"][0]["finish_reason"]
            choices = [event["choices"][0] for event in server.events(response.text)]
            return "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]

        async with server.watched() as peaks:
            with server.stopped():
                begun = asyncio.gather(*map(complete, prompts))
                await asyncio.to_thread(server.wait_for, lambda: server.metric(Metric.WAITING) == 64)
            streamed = await begun
        alone = [await complete(prompt, stream=False) for prompt in prompts[:8]]
    assert streamed[:8] == alone
    assert all(reason == "length" for _, reason in streamed)
    assert 0 < peaks["running"] <= 16
    await asyncio.to_thread(server.quiet)


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
def test_a_client_that_goes_away_frees_its_places_at_once(endless, stream, running):
    """Long before its tokens are made, or any; the gauges are back at 0, and each request counts as aborted."""
    aborted = endless.metric("vllm:request_success_total", finished_reason="abort")
    ended = endless.metric("vllm:request_success_total")
    made = endless.metric("vllm:generation_tokens_total")
    with contextlib.nullcontext() if running else endless.stopped():
        connections = [ask(endless, {**ENDLESS, "stream": stream, "n": 3}) for _ in range(2)]
        gauge = Metric.RUNNING if running else Metric.WAITING
        endless.wait_for(lambda: endless.metric(gauge) == 6)
        for connection in connections:
            connection.close()
    endless.quiet()
    assert endless.metric("vllm:request_success_total", finished_reason="abort") == aborted + 6
    assert endless.metric("vllm:request_success_total") == ended + 6
    assert endless.metric("vllm:generation_tokens_total") < made + 6 * ENDLESS["max_tokens"]


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "text"])
def test_a_stream_is_told_while_it_is_made(endless, chat):
    """Its first text comes when most of it has not been made yet, and it goes on coming."""
    options = {"model": "tiny", "max_tokens": 32000, "stream": True, "extra_body": {"ignore_eos": True}}
    with endless.openai() as client:
        if chat:
            stream = client.chat.completions.create(messages=[{"role": "user", "content": "hello"}], **options)
        else:
            stream = client.completions.create(prompt="hello", **options)
        pieces = [next(stream) for _ in range(10)]
        assert endless.metric(Metric.RUNNING) == 1
        stream.close()
    assert all(piece.choices[0].finish_reason is None for piece in pieces)
    endless.quiet()


def test_a_reader_that_does_not_read_holds_up_nobody(server):
    """Others are answered while its stream is stalled, and it still gets all of its text in the end."""
    body = {**LONG, "n": 16, "max_tokens": 300}
    connection = open_stream(server, body)
    for _ in range(5):
        answer = server.post(TEXT, {**LONG, "stream": False, "max_tokens": 4})
        assert answer.json()["usage"]["completion_tokens"] == 4
    server.quiet()
    received = b""
    while b"[DONE]" not in received:
        chunk = connection.recv(1 << 16)
        assert chunk, "the stream ended without [DONE]"
        received += chunk
    connection.close()
    assert received.count(b'"finish_reason":"length"') == 16


def test_a_full_queue_refuses_with_a_time_to_come_back(launch, tiny_argv):
    """There is a place to run and one to wait; the third is told to come back, and both others end as if it had never
    come."""
    server = launch(*tiny_argv[:-4], "--max-num-seqs", "1", "--max-num-queued-reqs", "1")
    with server.stopped():
        connections = [open_stream(server, LONG) for _ in range(2)]
        refused = server.post(TEXT, {**LONG, "max_tokens": 1})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "--max-num-queued-reqs" in refused.json()["error"]["message"]
    for connection in connections:
        received = b""
        while b"[DONE]" not in received:
            received += connection.recv(1 << 16)
        connection.close()
        assert b'"finish_reason":"length"' in received
    server.quiet()
    assert server.post(TEXT, {**LONG, "stream": False, "max_tokens": 1}).status_code == 200
