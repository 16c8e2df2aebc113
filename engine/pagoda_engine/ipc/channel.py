"""Frames over a stream socket: four bytes of big-endian length, then one message.

Two ends of one wire. `Channel` is the engine's: blocking, for a loop that computes and can't await. `AsyncChannel` is
the HTTP process's. Neither buffers more than the frame that it is working on, so back pressure is the socket's own.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Final

from pagoda_engine.ipc.messages import BadMessage, Message, decode, encode

MAX_FRAME_BYTES: Final = 256 * 2**20
"""Far above any message (a tokenizer of 500,000 words is 40 MB): a length above it is not a length."""

_LENGTH: Final = struct.Struct(">I")


class Closed(ConnectionError):
    """The other end is gone."""


class Channel:
    """The blocking end, owned by one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._received = bytearray()

    @classmethod
    def connect(cls, path: str) -> Channel:
        """Connect to a listening unix socket. Raises OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        return cls(connection)

    def send(self, message: Message) -> None:
        """Raises Closed where nobody reads any more."""
        payload = encode(message)
        try:
            self._socket.sendall(_LENGTH.pack(len(payload)) + payload)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def receive(self, *, wait: bool) -> list[Message]:
        """Every message that has arrived; with `wait`, sleeps in the kernel until there is at least one.

        Raises Closed when the other end has closed and nothing is left to read.
        """
        messages: list[Message] = []
        while True:
            while (message := self._take()) is not None:
                messages.append(message)
            if not self._poll.poll(None if wait and not messages else 0):
                return messages
            try:
                received = self._socket.recv(1 << 20)
            except ConnectionResetError:
                received = b""
            if not received:
                if messages:
                    return messages
                raise Closed("the other end has closed the connection")
            self._received += received

    def close(self) -> None:
        self._socket.close()

    def _take(self) -> Message | None:
        if len(self._received) < _LENGTH.size:
            return None
        end = _LENGTH.size + _checked(_LENGTH.unpack_from(self._received)[0])
        if len(self._received) < end:
            return None
        message = decode(bytes(self._received[_LENGTH.size : end]))
        del self._received[:end]
        return message


class AsyncChannel:
    """The event loop's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Message) -> None:
        """Hands the message to the transport, whose buffer holds what the engine has not read yet.

        That buffer is bounded by who may submit: requests are admitted by number, and each has a longest prompt.
        """
        payload = encode(message)
        self._writer.write(_LENGTH.pack(len(payload)) + payload)

    async def receive(self) -> Message:
        """The next message. Raises Closed at the end, BadMessage where the bytes are none of ours."""
        try:
            header = await self._reader.readexactly(_LENGTH.size)
            payload = await self._reader.readexactly(_checked(_LENGTH.unpack(header)[0]))
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            raise Closed("the other end has closed the connection") from error
        return decode(payload)

    def close(self) -> None:
        self._writer.close()


def _checked(length: int) -> int:
    if length > MAX_FRAME_BYTES:
        raise BadMessage(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return length
