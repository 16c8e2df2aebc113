"""No body that JSON can say makes the server answer 5xx, and the engine serves on."""

import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagoda_engine.server.protocol import UNSUPPORTED, ChatBody, CompletionBody

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PLAUSIBLE = {
    "model": st.sampled_from(["tiny", "other", ""]),
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool", "x"])},
            optional={"content": st.none() | st.text(max_size=30) | st.lists(JSON, max_size=2), "name": JSON},
        ),
        max_size=4,
    ),
    "prompt": st.text(max_size=30)
    | st.lists(st.integers(-1, 450), max_size=6)
    | st.lists(st.text(max_size=5), max_size=3),
    "max_tokens": st.integers(-1, 6),
    "max_completion_tokens": st.integers(-1, 6),
    "min_tokens": st.integers(-1, 6),
    "temperature": st.floats(-0.5, 2.5),
    "top_p": st.floats(-0.5, 1.5),
    "top_k": st.integers(-2, 500),
    "min_p": st.floats(-0.5, 1.5),
    "n": st.integers(-1, 3),
    "seed": st.integers(-(2**65), 2**65),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=5),
    "stop_token_ids": st.lists(st.integers(-1, 450), max_size=4),
    "repetition_penalty": st.floats(-0.5, 3),
    "presence_penalty": st.floats(-2.5, 2.5),
    "frequency_penalty": st.floats(-2.5, 2.5),
    "logit_bias": st.dictionaries(
        st.integers(-1, 450).map(str) | st.text(max_size=3), st.floats(-110, 110), max_size=4
    ),
    "allowed_token_ids": st.lists(st.integers(-1, 450), max_size=6),
    "bad_words": st.lists(st.text(max_size=6), max_size=4),
    "logprobs": st.booleans() | st.integers(-1, 22),
    "top_logprobs": st.integers(-1, 22),
    "prompt_logprobs": st.integers(-1, 22),
    "stream": st.booleans(),
    "echo": st.booleans(),
    "chat_template_kwargs": st.dictionaries(st.text(max_size=8), JSON, max_size=3),
}
FIELDS = sorted({*ChatBody.model_fields, *CompletionBody.model_fields, *UNSUPPORTED})


@st.composite
def bodies(draw):
    """A body that may well be served, with some of its fields replaced by anything."""
    names = draw(st.sets(st.sampled_from(FIELDS), max_size=8))
    body = {name: draw(PLAUSIBLE.get(name, JSON)) for name in names}
    body.setdefault("max_tokens", draw(st.integers(1, 4)))
    for name in draw(st.sets(st.sampled_from(sorted(body)), max_size=2)):
        body[name] = draw(JSON)
    return body


@pytest.fixture(scope="module")
def connection(server):
    with httpx.Client(base_url=server.url, timeout=60) as connection:
        yield connection


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@settings(max_examples=150)
@given(body=bodies())
def test_no_body_is_answered_with_a_server_error(connection, path, body):
    response = connection.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    else:
        assert '"error"' not in response.text[:50]


@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_no_bytes_are_answered_with_a_server_error(connection, content):
    response = connection.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400


def test_the_engine_serves_on_and_holds_nothing(server):
    assert server.get("/health").status_code == 200
    server.quiet()
