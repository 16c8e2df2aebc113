"""A step as plain numbers: all that a forward pass needs to know, whoever scheduled it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pagoda_engine.core.request import Request
from pagoda_engine.core.scheduler import Work

_INT32: Final = "i"


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The works of a step, their tokens in one row.

    `ids` are the tokens, 0 where one is still in flight; sequence i's are `starts[i]:starts[i + 1]`, and the last of
    them is at position `contexts[i] - 1`. `tables[i]` are its blocks. `rows` are the places in `ids` whose logits are
    wanted. The tokens at the places `in_flight` are those that the step before chose, numbered by `chosen`; `samples`
    counts those that this step chooses.
    """

    ids: tuple[int, ...]
    starts: tuple[int, ...]
    contexts: tuple[int, ...]
    tables: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...]
    in_flight: tuple[int, ...] = ()
    chosen: tuple[int, ...] = ()
    samples: int = 0

    @classmethod
    def of(cls, batch: Sequence[Work], before: Mapping[Request, int]) -> StepInputs:
        """`before` numbers the requests that the step before chose tokens for."""
        ids: list[int] = []
        starts, rows = [0], []
        flying = []
        for work in batch:
            if work.in_flight:
                flying.append((len(ids), before[work.request]))
            ids += work.known or [0]
            starts.append(len(ids))
            rows += [len(ids) - work.stop + position for position in work.rows]
        return cls(
            ids=tuple(ids),
            starts=tuple(starts),
            contexts=tuple(work.stop for work in batch),
            tables=tuple(tuple(work.request.blocks) for work in batch),
            rows=tuple(rows),
            in_flight=tuple(place for place, _ in flying),
            chosen=tuple(number for _, number in flying),
            samples=sum(work.samples for work in batch),
        )

    def positions(self) -> Iterator[int]:
        """Each token's place in its own sequence."""
        for start, stop, context in zip(self.starts, self.starts[1:], self.contexts, strict=False):
            yield from range(context - (stop - start), context)

    def slots(self, block_size: int) -> Iterator[int]:
        """Where each token's key and value go: block times block size plus offset."""
        for start, stop, context, table in zip(self.starts, self.starts[1:], self.contexts, self.tables, strict=False):
            for position in range(context - (stop - start), context):
                yield table[position // block_size] * block_size + position % block_size

    def to_bytes(self) -> bytes:
        """int32 in this machine's order: four counts and `samples`, then the fields, each table behind its length."""
        counts = (len(self.ids), len(self.contexts), len(self.rows), len(self.in_flight), self.samples)
        fields = (self.ids, self.starts, self.contexts, self.rows, self.in_flight, self.chosen)
        numbers = array(_INT32, counts)
        for field in fields:
            numbers.extend(field)
        for table in self.tables:
            numbers.append(len(table))
            numbers.extend(table)
        return numbers.tobytes()

    @classmethod
    def from_bytes(cls, payload: bytes) -> StepInputs:
        """The inverse of `to_bytes`. Raises ValueError where the numbers don't come out even."""
        numbers = array(_INT32)
        numbers.frombytes(payload)
        at = 0

        def take(count: int) -> tuple[int, ...]:
            nonlocal at
            at += count
            if at > len(numbers):
                raise ValueError(f"a step of {len(payload)} bytes ends too early")
            return tuple(numbers[at - count : at])

        ids, works, rows, flying, samples = take(5)
        inputs = cls(
            ids=take(ids),
            starts=take(works + 1),
            contexts=take(works),
            rows=take(rows),
            in_flight=take(flying),
            chosen=take(flying),
            tables=tuple(take(take(1)[0]) for _ in range(works)),
            samples=samples,
        )
        if at != len(numbers):
            raise ValueError(f"a step of {len(payload)} bytes goes on after its end")
        return inputs
