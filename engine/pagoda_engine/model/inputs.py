"""A step as plain numbers: all that a forward pass needs to know, whoever scheduled it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pagoda_engine.core.scheduler import Work

_INT32: Final = "i"


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The works of a step, their tokens in one row.

    `ids` are the tokens, 0 where one is still in flight; sequence i's are `starts[i]:starts[i + 1]`, and the last of
    them is at position `contexts[i] - 1`. `tables[i]` are its blocks. `rows` are the places in `ids` whose logits are
    wanted.
    """

    ids: tuple[int, ...]
    starts: tuple[int, ...]
    contexts: tuple[int, ...]
    tables: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, batch: Sequence[Work]) -> StepInputs:
        ids: list[int] = []
        starts, rows = [0], []
        for work in batch:
            ids += work.known or [0]
            starts.append(len(ids))
            rows += [len(ids) - work.stop + position for position in work.rows]
        return cls(
            ids=tuple(ids),
            starts=tuple(starts),
            contexts=tuple(work.stop for work in batch),
            tables=tuple(tuple(work.request.blocks) for work in batch),
            rows=tuple(rows),
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
        """int32 in this machine's order: four counts, the fields one after the other, tables behind their lengths."""
        numbers = array(_INT32, (len(self.ids), len(self.contexts), len(self.rows)))
        for field in (self.ids, self.starts, self.contexts, self.rows, tuple(map(len, self.tables)), *self.tables):
            numbers.extend(field)
        return numbers.tobytes()

    @classmethod
    def from_bytes(cls, payload: bytes) -> StepInputs:
        """The inverse of `to_bytes`. Raises ValueError where the numbers don't come out even."""
        numbers = array(_INT32)
        numbers.frombytes(payload)
        values = iter(numbers)

        def take(count: int) -> tuple[int, ...]:
            return tuple(next(values) for _ in range(count))

        try:
            ids, works, rows = take(3)
            inputs = cls(ids=take(ids), starts=take(works + 1), contexts=take(works), rows=take(rows), tables=())
            lengths = take(works)
            tables = tuple(take(length) for length in lengths)
        except RuntimeError as error:  # of a generator whose `next` found no more
            raise ValueError(f"a step of {len(payload)} bytes ends too early") from error
        if next(values, None) is not None:
            raise ValueError(f"a step of {len(payload)} bytes goes on after its end")
        return cls(inputs.ids, inputs.starts, inputs.contexts, tables, inputs.rows)
