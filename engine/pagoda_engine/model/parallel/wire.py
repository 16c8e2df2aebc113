"""Frames between rank 0 and another rank, over one socket pair: a byte that says what it is, a length, plain bytes.

    rank -> rank 0:  PROGRESS*  ->  LOADED      or, at any time,  FAILED
    rank 0 -> rank:  JOIN  ->  STEP*

Standard library only: ranks are started before torch is imported, so that all import it at the same time.
"""

from __future__ import annotations

import json
import socket
import struct
from contextlib import suppress
from enum import IntEnum
from typing import Final

from pagoda_engine.errors import EngineDied

_HEADER: Final = struct.Struct(">BI")
_PERCENT: Final = struct.Struct(">d")


class Closed(ConnectionError):
    """The other end is gone."""


class PeerLost(EngineDied):
    """A collective failed: another rank is gone, or does not answer."""


class Kind(IntEnum):
    """What a frame says."""

    PROGRESS = 1
    """How far a rank's loading is: a float64."""
    LOADED = 2
    """A rank holds its weights and waits to join the group."""
    FAILED = 3
    """A rank is about to end: JSON, [exit code, message]."""
    JOIN = 4
    """All ranks have loaded."""
    STEP = 5
    """Compute this: `inputs.StepInputs.to_bytes`."""


class Wire:
    """One end. Sending and receiving may be done by different threads, each by one."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Raises Closed where nobody reads any more."""
        try:
            self._socket.sendall(_HEADER.pack(kind, len(payload)) + payload)
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self) -> tuple[Kind, bytes]:
        """The next frame; sleeps until there is one. Raises Closed at the end."""
        kind, length = _HEADER.unpack(self._exactly(_HEADER.size))
        return Kind(kind), self._exactly(length)

    def close(self) -> None:
        """End it for both ends, a `receive` that waits in another thread included."""
        with suppress(OSError):  # the other end was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            try:
                piece = self._socket.recv(count - len(received))
            except OSError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed("the other end has closed the connection")
            received += piece
        return bytes(received)


def percent_to_bytes(percent: float) -> bytes:
    return _PERCENT.pack(percent)


def percent_from_bytes(payload: bytes) -> float:
    return float(_PERCENT.unpack(payload)[0])


def failure_to_bytes(exit_code: int, message: str) -> bytes:
    return json.dumps([exit_code, message]).encode()


def failure_from_bytes(payload: bytes) -> tuple[int, str]:
    exit_code, message = json.loads(payload)
    return int(exit_code), str(message)
