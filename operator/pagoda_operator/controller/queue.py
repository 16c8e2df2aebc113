"""The work queue: keys that should be looked at, each at most once at a time. The shape is client-go's `workqueue`.

Three promises, whatever the order of calls: a key is never in two hands at once; a key added while it waits is one
entry; a key added while it is being processed is processed again afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

SPACING: Final = 1.0
SPACING_A_KEY: Final = 0.1
LONGEST_SPACING: Final = 60.0
"""Seconds between two turns of a key that only `add_soon` adds: at least, for each key that waits so, and at most."""


@dataclass(frozen=True, slots=True, order=True)
class _Entry(Generic[Key]):
    """A key's place in the queue."""

    last: bool
    ticket: int
    key: Key = field(compare=False)


class WorkQueue(Generic[Key]):
    """Delays are seconds. `base_delay` doubles with each failure of a key, up to `max_delay`, until `forget`."""

    def __init__(self, *, base_delay: float = 0.5, max_delay: float = 300.0) -> None:
        self._base_delay = base_delay
        self._max_delay = max_delay
        self._ready: asyncio.PriorityQueue[_Entry[Key]] = asyncio.PriorityQueue()
        self._dirty: dict[Key, _Entry[Key]] = {}  # to be processed: those in `_ready`, and those added while in hand
        self._tickets = itertools.count()
        self._in_hand: dict[Key, float] = {}  # and since when, in the loop's time
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._flock: set[Key] = set()  # that `add_soon` added, and nobody has taken in hand since
        self._taken: OrderedDict[Key, float] = OrderedDict()  # when, of those of the last LONGEST_SPACING

    def __len__(self) -> int:
        """Keys that wait for a hand; those in hand and those with a timer don't count."""
        return len(self._dirty.keys() - self._in_hand.keys())

    def add(self, key: Key, *, first: bool = False) -> None:
        """Have `key` processed as soon as it is free; with `first`, before all that were added without it."""
        known = self._dirty.get(key)
        if known is None or (first and known.last):
            self._dirty[key] = entry = _Entry(not first, next(self._tickets), key)
            if key not in self._in_hand:
                self._ready.put_nowait(entry)

    def add_all(self, keys: Iterable[Key]) -> None:
        """`add` each of these."""
        for key in keys:
            self.add(key)

    def add_soon(self, key: Key, delay: float = 0.0) -> None:
        """Add `key` in `delay` seconds, and not too soon after it was last taken in hand: for what comes in flocks, and
        is looked at together. The more keys wait so, the longer each is left alone."""
        self._flock.add(key)
        spacing = min(max(SPACING, SPACING_A_KEY * len(self._flock)), LONGEST_SPACING)
        free_at = self._taken.get(key, float("-inf")) + spacing
        self.add_after(key, max(delay, free_at - asyncio.get_running_loop().time()))

    def add_after(self, key: Key, delay: float) -> None:
        """Add `key` in `delay` seconds, unless it is taken in hand before that, for whatever reason: whoever does so
        finds out anew when to look again. A key has one timer: of two the earlier one stands."""
        if delay <= 0:
            return self.add(key)
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due:
            return None
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)
        return None

    def add_failed(self, key: Key, at_least: float = 0.0, at_most: float = float("inf")) -> float:
        """Add `key` after its back-off, at least `at_least` and else at most `at_most` seconds; returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # The exponent is bounded so that a key that fails for weeks does not overflow a float.
        delay = max(at_least, min(self._base_delay * 2.0 ** min(failures, 32), self._max_delay, at_most))
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """`key` went well: its next failure starts with the shortest delay."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Wait for a key and take it in hand; the caller owes a `done`, whatever happens."""
        entry = await self._ready.get()
        while self._dirty.get(entry.key) is not entry:  # it was moved to the front, and taken there
            entry = await self._ready.get()
        key, now = entry.key, asyncio.get_running_loop().time()
        del self._dirty[key]
        self._flock.discard(key)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._in_hand[key] = self._taken[key] = now
        self._taken.move_to_end(key)
        while now - next(iter(self._taken.values())) > LONGEST_SPACING:
            self._taken.popitem(last=False)
        return key

    def done(self, key: Key) -> None:
        """Give `key` out of hand. Raises ValueError where it was not in hand."""
        if key not in self._in_hand:
            raise ValueError(f"{key!r} is not in hand; each get() has one done()")
        del self._in_hand[key]
        if key in self._dirty:
            self._ready.put_nowait(self._dirty[key])

    def longest_in_hand(self) -> float:
        """Seconds for which the key has been in hand that was taken first; 0 where there is none."""
        return asyncio.get_running_loop().time() - min(self._in_hand.values()) if self._in_hand else 0.0

    def close(self) -> None:
        """Cancel all timers; nothing is added by itself any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _fire(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)
