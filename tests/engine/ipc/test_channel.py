"""The wire between the two processes carries every message unchanged, in any cut, and nothing but messages."""

import asyncio
import contextlib
import pickle
import socket
import threading

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.ipc.channel import MAX_FRAME_BYTES, AsyncChannel, Channel, Closed
from pagoda_engine.ipc.messages import (
    BadMessage,
    Commands,
    Failed,
    Loading,
    Output,
    Ready,
    Stepped,
    Submit,
    decode,
    encode,
)

MESSAGES = [
    Loading("loading weights", 42.5, "model.safetensors"),
    Loading("starting", None, ""),
    Ready('{"model": {}}', "{{ messages }}", {"bos_token": "<s>"}, {"temperature": 0.6}, 32000, 2048, 100, 16),
    Failed(14, "the KV cache does not fit; lower --max-model-len"),
    Stepped(
        [Output("a-0", [1, 2], None, None, None, 0.25), Output("b-0", [], "stop", None, 7, None)],
        *(3, 1, 2, 0, 0.5, 9, 8, 7, 1),
    ),
    Stepped(
        [
            Output("a", [1], None, None, None, None, [Logprobs(1, -0.5, 2, [7, 1], [-0.25, -0.5])]),
            Output("b", [2], None, None, None, 0.5, [], [Logprobs(3, float("-inf"), 9, [], [])] * 2),
        ],
        *(0, 0, 2, 0, 0.5, 0, 0, 0, 0),
    ),
    Commands([Submit("a-0", [5, 6, 7], {"temperature": 0.0, "stop_token_ids": []}, 12.5, -1, "salt")], ["b-0"]),
    Commands([], []),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message):
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_bad_message_and_nothing_else(payload):
    with contextlib.suppress(BadMessage):
        decode(payload)


def test_a_pickle_is_refused_and_not_run():
    """No frame is ever unpickled, so bytes that would run code when unpickled are merely not a message."""
    with pytest.raises(BadMessage):
        decode(pickle.dumps(MESSAGES[0]))


@pytest.mark.parametrize("document", [[99, 1], [0], ["Loading", 1, 2, 3], {}, 7, [3, [[1, 2]], 0, 0, 0, 0, 0, 0]])
def test_well_formed_msgpack_that_is_no_message_is_refused(document):
    with pytest.raises(BadMessage):
        decode(msgpack.packb(document))


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    yield Channel(one), other
    one.close()
    other.close()


def frames(*messages):
    return b"".join(len(payload).to_bytes(4, "big") + payload for payload in map(encode, messages))


@pytest.mark.parametrize("cut", [1, 3, 7, 10_000])
def test_frames_arrive_whole_however_they_are_cut(ends, cut):
    channel, other = ends
    data = frames(*MESSAGES)

    def send():
        for start in range(0, len(data), cut):
            other.sendall(data[start : start + cut])

    sender = threading.Thread(target=send)
    sender.start()
    received = []
    while len(received) < len(MESSAGES):
        received += channel.receive(wait=True)
    sender.join()
    assert received == MESSAGES


def test_receive_without_waiting_returns_at_once_when_nothing_has_come(ends):
    channel, _ = ends
    assert channel.receive(wait=False) == []


def test_what_was_sent_before_the_end_is_read_before_the_end_is_told(ends):
    channel, other = ends
    other.sendall(frames(MESSAGES[0]))
    other.close()
    assert channel.receive(wait=True) == [MESSAGES[0]]
    with pytest.raises(Closed):
        channel.receive(wait=True)


def test_a_frame_that_claims_an_absurd_length_is_refused_before_any_memory_is_spent(ends):
    channel, other = ends
    other.sendall((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(BadMessage, match="at most"):
        channel.receive(wait=True)


def test_sending_to_a_closed_end_raises_closed(ends):
    channel, other = ends
    other.close()
    with pytest.raises(Closed):
        channel.send(MESSAGES[2])


async def test_the_two_ends_understand_each_other():
    one, other = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=one)
    near, far = AsyncChannel(reader, writer), Channel(other)
    for message in MESSAGES:
        near.send(message)
    received = []
    while len(received) < len(MESSAGES):
        received += await asyncio.to_thread(far.receive, wait=True)
    assert received == MESSAGES
    for message in MESSAGES:
        far.send(message)
    assert [await near.receive() for _ in MESSAGES] == MESSAGES
    far.close()
    with pytest.raises(Closed):
        await near.receive()
    near.close()
    await writer.wait_closed()
