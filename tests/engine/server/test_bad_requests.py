"""What is wrong with a request is said at once: status, type, field, and a message with the fix."""

import http.client
import json

import httpx
import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hi"}]


def chat(**fields):
    return {"model": "tiny", "messages": HELLO, **fields}


def text(**fields):
    return {"model": "tiny", "prompt": "hi", **fields}


# (path, body, status, param, code, words of the message)
REFUSED = {
    "unknown model": (CHAT, chat(model="gpt-5"), 404, "model", "model_not_found", "gpt-5"),
    "model of a wrong type": (CHAT, chat(model=3), 400, "model", None, "string"),
    "no messages": (CHAT, {"model": "tiny"}, 400, "messages", None, "required"),
    "empty messages": (CHAT, chat(messages=[]), 400, "messages", None, "at least one"),
    "messages of a wrong type": (CHAT, chat(messages="hi"), 400, "messages", None, "array"),
    "message without role": (CHAT, chat(messages=[{"content": "hi"}]), 400, "messages", None, "messages[0].role"),
    "user without content": (CHAT, chat(messages=[{"role": "user"}]), 400, "messages", None, "content"),
    "content of a wrong type": (
        CHAT,
        chat(messages=[{"role": "user", "content": 5}]),
        400,
        "messages",
        None,
        "content",
    ),
    "image": (
        CHAT,
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        400,
        "messages",
        None,
        "text",
    ),
    "tool calls": (
        CHAT,
        chat(messages=[{"role": "assistant", "tool_calls": [{"id": "1"}]}]),
        400,
        "messages",
        None,
        "tool_calls",
    ),
    "prompt too long": (TEXT, text(prompt=[5] * 513), 400, "prompt", "context_length_exceeded", "513"),
    "chat too long": (
        CHAT,
        chat(messages=[{"role": "user", "content": "🙂" * 1000}]),
        400,
        "messages",
        "context_length_exceeded",
        "512",
    ),
    "no prompt": (TEXT, {"model": "tiny"}, 400, "prompt", None, "required"),
    "empty prompt": (TEXT, text(prompt=""), 400, "prompt", None, "empty"),
    "empty list of prompts": (TEXT, text(prompt=[]), 400, "prompt", None, "empty"),
    "empty prompt among others": (TEXT, text(prompt=["a", ""]), 400, "prompt", None, "empty"),
    "empty token list": (TEXT, text(prompt=[[]]), 400, "prompt", None, "empty"),
    "token out of range": (TEXT, text(prompt=[5, 400000]), 400, "prompt", None, "400000"),
    "negative token": (TEXT, text(prompt=[-1]), 400, "prompt", None, ""),
    "too many prompts": (TEXT, text(prompt=["a"] * 129), 400, "n", None, "128"),
    "negative max_tokens": (TEXT, text(max_tokens=-1), 400, "max_tokens", None, "greater"),
    "zero max_tokens": (TEXT, text(max_tokens=0), 400, "max_tokens", None, "greater"),
    "huge max_tokens": (TEXT, text(max_tokens=10**9), 400, "max_tokens", "context_length_exceeded", "at most"),
    "max_tokens beyond 64 bits": (TEXT, text(max_tokens=10**30), 400, "max_tokens", "context_length_exceeded", "510"),
    "huge max_completion_tokens": (
        CHAT,
        chat(max_completion_tokens=10**9),
        400,
        "max_completion_tokens",
        "context_length_exceeded",
        "at most",
    ),
    "max_tokens as a string": (TEXT, text(max_tokens="5"), 400, "max_tokens", None, "integer"),
    "max_tokens as a truth": (TEXT, text(max_tokens=True), 400, "max_tokens", None, "integer"),
    "min_tokens above max_tokens": (TEXT, text(max_tokens=2, min_tokens=3), 400, "min_tokens", None, "max_tokens"),
    "temperature too high": (CHAT, chat(temperature=2.1), 400, "temperature", None, "2"),
    "temperature negative": (CHAT, chat(temperature=-0.1), 400, "temperature", None, "0"),
    "temperature as a string": (CHAT, chat(temperature="0.5"), 400, "temperature", None, "number"),
    "top_p of nothing": (CHAT, chat(top_p=0), 400, "top_p", None, "greater than 0"),
    "top_p above one": (CHAT, chat(top_p=1.5), 400, "top_p", None, "1"),
    "top_k below -1": (CHAT, chat(top_k=-2), 400, "top_k", None, "-1"),
    "min_p above one": (CHAT, chat(min_p=2), 400, "min_p", None, "1"),
    "seed beyond 64 bits": (CHAT, chat(seed=2**70), 400, "seed", None, ""),
    "n of nothing": (CHAT, chat(n=0), 400, "n", None, "1"),
    "n too large": (CHAT, chat(n=65), 400, "n", None, "64"),
    "five stop strings": (CHAT, chat(stop=["a", "b", "c", "d", "e"]), 400, "stop", None, "4"),
    "empty stop string": (CHAT, chat(stop=""), 400, "stop", None, "empty"),
    "stop of a wrong type": (CHAT, chat(stop=5), 400, "stop", None, ""),
    "endless stop string": (CHAT, chat(stop="a" * 513), 400, "stop", None, "512"),
    "stop token out of range": (CHAT, chat(stop_token_ids=[10**6]), 400, "stop_token_ids", None, "1000000"),
    "stream as a number": (CHAT, chat(stream=1), 400, "stream", None, "boolean"),
    "tools": (CHAT, chat(tools=[{"type": "function"}]), 400, "tools", "unsupported_parameter", "tools"),
    "json mode": (
        CHAT,
        chat(response_format={"type": "json_object"}),
        400,
        "response_format",
        "unsupported_parameter",
        "response_format",
    ),
    "best_of": (TEXT, text(best_of=3), 400, "best_of", "unsupported_parameter", ""),
    "suffix": (TEXT, text(suffix="end"), 400, "suffix", "unsupported_parameter", ""),
    "chat_template": (CHAT, chat(chat_template="{{ 1 }}"), 400, "chat_template", "unsupported_parameter", ""),
    "body that is a list": (CHAT, [1, 2], 400, None, None, "the body"),
    "body that is null": (CHAT, None, 400, None, None, "the body"),
}


@pytest.mark.parametrize(("path", "body", "status", "param", "code", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_field_is_named(server, path, body, status, param, code, words):
    response = server.post(path, body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"], error["code"]) == (
        status,
        "invalid_request_error",
        param,
        code,
    ), error
    assert words in error["message"]
    assert len(error["message"]) < 1100


NEUTRAL = {
    "user": "me",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "tools": [],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "logprobs": False,
    "logit_bias": {},
    "presence_penalty": 0.0,
    "frequency_penalty": 0,
    "repetition_penalty": 1.0,
    "parallel_tool_calls": True,
    "a_field_of_tomorrow": [1, 2, 3],
    "temperature": None,
    "stop": None,
    "stream": None,
    "n": None,
    "stream_options": None,
}


@pytest.mark.parametrize("field", NEUTRAL)
def test_a_field_that_asks_for_nothing_is_accepted(server, field):
    assert server.post(CHAT, chat(max_tokens=1, **{field: NEUTRAL[field]})).status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": 1,}', b"\xff\xfe", b'{"messages": ["\\ud800"]}', b"[" * 100_000]
)
def test_malformed_json_is_said_to_be_so(server, content):
    response = httpx.post(server.url + CHAT, content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert "JSON" in error["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(server, content_type):
    """A form of another site can't post to a local server, since a browser asks nobody before it sends such types."""
    headers = {"content-type": content_type} if content_type else {}
    response = httpx.post(server.url + CHAT, content=json.dumps(chat()).encode(), headers=headers)
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]


def test_a_body_above_the_limit_is_refused_unread(server):
    """By its declared length: the answer comes although not one byte of the body was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(server.url).port, timeout=30)
    connection.putrequest("POST", CHAT)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(10**9))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == "request_too_large"
    connection.close()


def test_a_body_above_the_limit_is_refused_also_without_a_declared_length(server):
    def chunks():
        for _ in range(17):
            yield b" " * 2**20

    response = httpx.post(server.url + CHAT, content=chunks(), headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_thousands_of_mistakes_make_a_short_answer(server):
    response = server.post(CHAT, chat(messages=[{"role": 5, "content": "x" * 100}] * 4000))
    assert response.status_code == 400
    assert len(response.content) < 2000
    assert "more" in response.json()["error"]["message"]
    assert "xxx" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2", 404), ("GET", CHAT, 405), ("POST", "/health", 405)]
)
def test_unknown_paths_and_methods_have_the_same_shape(server, method, path, status):
    response = httpx.request(method, server.url + path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_the_engine_goes_on_after_all_of_them(server):
    assert server.post(TEXT, text(max_tokens=3)).json()["usage"]["completion_tokens"] == 3
    server.quiet()
