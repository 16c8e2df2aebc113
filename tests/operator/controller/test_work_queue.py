"""The work queue keeps client-go's promises under any order of calls."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagoda_operator.controller.queue import WorkQueue

# One step of a scenario: wait, then do something to a key.
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.7, 3.0]), st.sampled_from(["add", "soon", "after", "failed"]), st.integers(0, 3)
    ),
    max_size=40,
)


@given(steps=STEPS, workers=st.integers(1, 4), length=st.sampled_from([0.0, 0.3, 2.0]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_key_is_in_two_hands_and_no_add_is_lost(virtual, steps, workers, length):
    """After the last add of a key there is a whole run of that key, and never two at a time."""

    async def scenario():
        queue, loop = WorkQueue(base_delay=0.5, max_delay=8), asyncio.get_running_loop()
        in_hand, started, added = set(), {}, {}

        async def work():
            while True:
                key = await queue.get()
                assert key not in in_hand
                in_hand.add(key)
                started[key] = loop.time()
                await asyncio.sleep(length)
                in_hand.remove(key)
                queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for pause, action, key in steps:
            await asyncio.sleep(pause)
            if action == "add":
                queue.add(key)
            elif action == "soon":
                queue.add_soon(key, 0.2)
            elif action == "after":
                queue.add_after(key, 1.5)
            else:
                queue.add_failed(key)
            added[key] = loop.time()
        await asyncio.sleep(1000)
        assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
        assert all(started[key] >= when for key, when in added.items())
        assert len(queue) == 0
        for task in tasks:
            task.cancel()

    virtual(scenario())


def test_a_key_that_waits_is_one_entry(virtual):
    async def scenario():
        queue = WorkQueue()
        for _ in range(5):
            queue.add("a")
        queue.add("b")
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == ["a", "b"]

    virtual(scenario())


def test_a_key_added_while_it_is_processed_runs_once_more(virtual):
    async def scenario():
        queue = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0, "not before it is given out of hand"
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert len(queue) == 0

    virtual(scenario())


def test_back_off_doubles_for_each_key_until_it_goes_well(virtual):
    async def scenario():
        queue = WorkQueue(base_delay=1, max_delay=10)
        assert [queue.add_failed("a") for _ in range(6)] == [1, 2, 4, 8, 10, 10]
        assert queue.add_failed("b") == 1
        queue.forget("a")
        assert queue.add_failed("a") == 1
        assert queue.add_failed("c", at_least=30) == 30, "a server's Retry-After counts"

    virtual(scenario())


def test_of_two_timers_the_earlier_one_stands(virtual):
    async def scenario():
        queue, loop = WorkQueue(), asyncio.get_running_loop()
        queue.add_after("a", 60)
        queue.add_after("a", 5)
        queue.add_after("a", 30)
        assert await queue.get() == "a"
        assert loop.time() == 5
        queue.done("a")
        await asyncio.sleep(100)
        assert len(queue) == 0, "the others are gone"

    virtual(scenario())


def test_what_comes_in_flocks_is_looked_at_together_and_not_at_once_again(virtual):
    async def scenario():
        queue, loop, taken = WorkQueue(), asyncio.get_running_loop(), []

        async def work():
            while True:
                key = await queue.get()
                taken.append(loop.time())
                queue.done(key)

        worker = asyncio.create_task(work())
        for _ in range(20):
            queue.add_soon("a", 0.2)
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert taken == pytest.approx([0.2, 1.2, 2.2])
        queue.add_soon("a", 0.2)
        await asyncio.sleep(1)
        assert taken[3:] == pytest.approx([12.2]), "alone it waits for no one"
        queue.add("a")
        await asyncio.sleep(0)
        assert taken[4:] == pytest.approx([13.0]), "who is in a hurry does not wait"
        worker.cancel()

    virtual(scenario())


def test_the_more_keys_come_in_flocks_the_longer_each_is_left_alone(virtual):
    """So that a thousand services on their way take little more of a processor than fifty."""

    async def scenario():
        queue, loop, turns = WorkQueue(), asyncio.get_running_loop(), 0

        async def work():
            nonlocal turns
            while True:
                queue.done(await queue.get())
                turns += 1

        worker = asyncio.create_task(work())
        while loop.time() < 100:
            for key in range(1000):
                queue.add_soon(key, 0.2)
            await asyncio.sleep(0.5)
        worker.cancel()
        assert 1000 < turns < 5000

    virtual(scenario())


def test_a_key_that_was_taken_in_hand_before_its_timer_is_not_taken_again(virtual):
    async def scenario():
        queue = WorkQueue()
        queue.add_after("a", 5)
        queue.add("a")
        queue.done(await queue.get())
        await asyncio.sleep(10)
        assert len(queue) == 0

    virtual(scenario())


def test_a_closed_queue_adds_nothing_by_itself(virtual):
    async def scenario():
        queue = WorkQueue()
        queue.add_after("a", 5)
        queue.close()
        await asyncio.sleep(10)
        assert len(queue) == 0

    virtual(scenario())


def test_giving_back_what_was_not_taken_is_a_bug(virtual):
    async def scenario():
        with pytest.raises(ValueError, match="not in hand"):
            WorkQueue().done("a")

    virtual(scenario())


def test_keys_are_served_in_the_order_of_their_first_add(virtual):
    async def scenario():
        queue = WorkQueue()
        for key in "cabcab":
            queue.add(key)
        order = [await queue.get() for _ in range(3)]
        assert order == ["c", "a", "b"]
        assert Counter(order) == Counter("abc")

    virtual(scenario())


async def test_a_key_that_is_added_first_overtakes_and_is_still_one():
    """Also where it waits already; and among themselves they keep their order."""
    queue = WorkQueue()
    for key in ("a", "b", "c", "d"):
        queue.add(key)
    queue.add("c", first=True)
    queue.add("b", first=True)
    queue.add("c")
    assert len(queue) == 4
    assert [await queue.get() for _ in range(4)] == ["c", "b", "a", "d"]
    assert len(queue) == 0
    queue.add("a", first=True)
    queue.add("e")
    queue.done("a")
    assert [await queue.get() for _ in range(2)] == ["a", "e"]


def test_what_has_been_in_hand_for_long_is_known(virtual):
    """By it a liveness probe tells a worker that hangs from a queue that is empty."""

    async def scenario():
        queue = WorkQueue()
        assert queue.longest_in_hand() == 0.0
        queue.add("a")
        queue.add("b")
        await queue.get()
        await asyncio.sleep(5)
        await queue.get()
        await asyncio.sleep(2)
        assert queue.longest_in_hand() == 7.0
        queue.done("a")
        assert queue.longest_in_hand() == 2.0

    virtual(scenario())


def test_an_outage_makes_nobody_wait_long(virtual):
    """Failures that are not the key's own doing are counted, but their delay has a bound of its own."""

    async def scenario():
        queue = WorkQueue()
        delays = [queue.add_failed("a", at_most=30.0) for _ in range(20)]
        assert delays == sorted(delays)
        assert delays[-1] == 30.0
        assert queue.add_failed("a", at_least=60.0, at_most=30.0) == 60.0, "the server's own word counts more"

    virtual(scenario())
