"""A client that does not read costs what its own answer holds, and stops nothing but its own stream."""

import asyncio

from pagoda_engine.ipc.messages import Output
from pagoda_engine.process.streams import Mailbox
from pagoda_engine.server.connection import EventStream


async def test_what_was_not_read_is_one_update_however_many_outputs_came():
    mailbox = Mailbox()
    for token in range(5000):
        mailbox.put(0, Output("a-0", [token], None, None, None, None))
    mailbox.put(0, Output("a-0", [], "length", None, None, None))
    updates = await mailbox.take()
    assert list(updates) == [0]
    assert updates[0].token_ids == list(range(5000))
    assert updates[0].finish_reason == "length"


async def test_no_event_is_made_before_the_one_before_it_has_left():
    """The socket's back pressure reaches the generator: nothing is buffered in between."""
    made, sent = [], []
    reads = asyncio.Semaphore(0)

    async def events():
        for number in range(100):
            made.append(number)
            yield b"data: %d\n\n" % number

    async def send(message):
        await reads.acquire()
        sent.append(message)

    async def receive():
        await asyncio.Event().wait()

    stream = asyncio.create_task(EventStream(events())({"type": "http"}, receive, send))
    for read in range(1, 30):
        reads.release()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(sent) == read
        assert len(made) == read, "the one that waits to be sent, and none after it"
    for _ in range(200):
        reads.release()
    await stream
    assert len(made) == 100
