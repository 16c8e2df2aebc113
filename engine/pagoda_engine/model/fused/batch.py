"""A step's works as the arrays that the kernels read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pagoda_engine.core.scheduler import Work
from pagoda_engine.kernels.cpu import attention
from pagoda_engine.kernels.cpu.rotary import BLOCK
from pagoda_engine.kernels.cpu.step import Batch


class BatchWriter:
    """Writes one step after the other into the same arrays; of a block table, only what is new since the last step."""

    def __init__(self, batch: Batch, group: int) -> None:
        """`group`: query heads that share a KV head."""
        self._batch = batch
        self._group = group
        self._tables = batch.tables.reshape(-1, batch.table_width)
        # By row: the list that was written there, and how much of it. A running request's list only grows.
        self._written: list[tuple[list[int], int]] = [([], 0)] * len(self._tables)

    def write(self, works: Sequence[Work]) -> None:
        """Write the step's tokens, and which rows' logits are wanted, in the works' order."""
        batch = self._batch
        for row, work in enumerate(works):
            self._write_table(row, work.request.blocks)
        counts = np.array([len(work) for work in works])
        stops = np.array([work.stop for work in works])
        ends = counts.cumsum()
        total = int(ends[-1])
        owners = np.repeat(np.arange(len(works)), counts)
        positions = np.arange(total) + np.repeat(stops - ends, counts)
        batch.ids[:total] = [token for work in works for token in work.known]
        batch.positions[:total] = positions
        batch.slots[:total] = self._tables[owners, positions // BLOCK].astype(np.int64) * BLOCK + positions % BLOCK
        # Was the block of the last token begun in this step?
        batch.lasts[:total] = 0
        batch.lasts[ends - 1] = stops - counts <= (stops - 1) // BLOCK * BLOCK
        batch.starts[: len(works) + 1] = np.concatenate(([0], ends))
        batch.contexts[: len(works)] = stops
        wanted = np.array([len(work.rows) for work in works])
        sampled = np.arange(wanted.sum()) + np.repeat(ends - wanted.cumsum(), wanted)
        batch.sampled[: len(sampled)] = sampled
        batch.counts[:] = total, self._write_tiles(counts), len(sampled)

    def _write_table(self, row: int, blocks: list[int]) -> None:
        owner, count = self._written[row]
        if owner is not blocks:
            count = 0
        if count < len(blocks):
            self._tables[row, count : len(blocks)] = blocks[count:]
            self._written[row] = blocks, len(blocks)

    def _write_tiles(self, counts: np.ndarray) -> int:
        """Groups of rows that attention computes together. The last of a prompt see the most: they are begun first, so
        that none of them is waited for at the end."""
        of_each = -(-counts * self._group // attention.ROWS)
        number = int(of_each.sum())
        owners = np.repeat(np.arange(len(counts)), of_each)
        before = np.repeat(of_each.cumsum() - of_each, of_each)
        tiles = self._batch.tiles[:number][::-1]
        tiles[:, 0] = owners
        tiles[:, 1] = (np.arange(number) - before) * attention.ROWS
        return number
