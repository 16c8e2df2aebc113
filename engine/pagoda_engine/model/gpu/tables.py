"""Block tables that live on the device: a step sends only the blocks that are new to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pagoda_engine.core.request import Request


@dataclass(slots=True)
class _Row:
    """A request's row, and which of its blocks stand there: the first `sent` of that very list."""

    index: int
    blocks: list[int]
    sent: int


class BlockTables:
    """A row of `tensor` (int32 [rows, width]) for each of the last requests that ran.

    Nobody says when a request ends: the row that was used longest ago is given away. There must be twice as many rows
    as requests in a step. A request's list of blocks grows in place; another list, after preemption, is sent anew.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.tensor = torch.zeros(rows, width, dtype=torch.int32, device=device)
        self._free = list(reversed(range(rows)))
        self._rows: OrderedDict[Request, _Row] = OrderedDict()

    def place(self, requests: Sequence[Request]) -> tuple[list[int], list[int], list[int]]:
        """The requests' rows; and what must be written first: places in the flattened tensor, and their blocks."""
        rows: list[int] = []
        places: list[int] = []
        values: list[int] = []
        width = self.tensor.shape[1]
        for request in requests:
            row = self._row(request)
            blocks = request.blocks
            if row.blocks is not blocks:
                row.blocks, row.sent = blocks, 0
            if (count := len(blocks)) > row.sent:
                places += range(row.index * width + row.sent, row.index * width + count)
                values += blocks[row.sent :]
                row.sent = count
            rows.append(row.index)
        return rows, places, values

    def write(self, places: Tensor, values: Tensor) -> None:
        """Both int64, on the device."""
        self.tensor.view(-1).index_copy_(0, places, values.int())

    def _row(self, request: Request) -> _Row:
        row = self._rows.get(request)
        if row is None:
            index = self._free.pop() if self._free else self._rows.popitem(last=False)[1].index
            row = self._rows[request] = _Row(index, request.blocks, 0)
        self._rows.move_to_end(request)
        return row
