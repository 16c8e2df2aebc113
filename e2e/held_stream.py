"""A stream whose client does not read: a request that goes on for as long as a test likes.

The answer must be more than the kernels of both sides keep for such a client: it has log-probabilities with each token,
and buffers and segments are small, which has to be asked before the connection is made.
"""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final, Self

from e2e.api import Object

SMALL_BUFFERS: Final = (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096), (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
ANSWER: Final = {"max_tokens": 480, "n": 4, "logprobs": 5, "ignore_eos": True, "stream": True}
"""About half a megabyte of an answer to a completion."""
SECONDS: Final = 60.0


class HeldStream:
    """A context manager: inside, an answer has begun and nobody reads it."""

    def __init__(self, host: str, port: int, model: str) -> None:
        self._connection = HTTPConnection(host, port)
        self._socket = socket.socket()
        self._address = host, port
        self._body: Object = {"model": model, "prompt": "hello", **ANSWER}
        self._response: HTTPResponse | None = None

    def __enter__(self) -> Self:
        for option in SMALL_BUFFERS:
            self._socket.setsockopt(*option)
        self._socket.settimeout(SECONDS)
        self._socket.connect(self._address)
        self._connection.sock = self._socket
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/completions", json.dumps(self._body), headers)
        self._response = self._connection.getresponse()
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()
        self._socket.close()

    def rest(self) -> list[Any]:
        """Read to the end: the finish_reason of each choice. Raises OSError or HTTPException where it breaks off."""
        if self._response is None:
            return []
        events = [line.removeprefix("data: ") for line in self._response.read().decode().split("\n\n") if line]
        choices = [choice for event in events if event != "[DONE]" for choice in json.loads(event)["choices"]]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
