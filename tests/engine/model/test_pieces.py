"""What goes from rank to rank as numbers: parts of a tensor, and a step."""

import pytest
import torch

from pagoda_engine.model.inputs import StepInputs
from pagoda_engine.model.parallel.pieces import Piece, share


def test_shares_of_a_dimension_are_even_and_come_to_the_whole():
    for width in (0, 1, 7, 97, 128):
        for size in (1, 2, 3, 8):
            shares = [share(width, rank, size) for rank in range(size)]
            assert [start for start, _ in shares] == [0, *(stop for _, stop in shares[:-1])]
            assert shares[-1][1] == width
            widths = [stop - start for start, stop in shares]
            assert max(widths) - min(widths) <= (8 if width % 8 == 0 else 1)
    assert [share(40, rank, 3) for rank in range(3)] == [(0, 8), (8, 24), (24, 40)]


def test_a_piece_is_its_intervals_and_then_zeros():
    whole = torch.arange(12.0).reshape(4, 3)
    piece = Piece(-2, ((3, 4), (0, 1)), 3)
    assert piece.take(whole).tolist() == [[9, 10, 11], [0, 1, 2], [0, 0, 0]]
    assert piece.shape(whole.shape) == (3, 3)
    columns = Piece.of(-1, (1, 3)).take(whole)
    assert columns.is_contiguous()
    assert columns.tolist() == [[1, 2], [4, 5], [7, 8], [10, 11]]


def test_a_step_survives_its_way_to_another_rank():
    inputs = StepInputs(
        ids=(5, 6, 7, 0),
        starts=(0, 3, 4),
        contexts=(3, 40),
        tables=((2,), (1, 0, 9)),
        rows=(2, 3),
        in_flight=(3,),
        chosen=(1,),
        samples=2,
    )
    assert StepInputs.from_bytes(inputs.to_bytes()) == inputs
    assert list(inputs.positions()) == [0, 1, 2, 39]
    assert list(inputs.slots(16)) == [32, 33, 34, 9 * 16 + 7]
    for damaged in (inputs.to_bytes()[:-4], inputs.to_bytes() + b"\0\0\0\0"):
        with pytest.raises(ValueError, match="a step of"):
            StepInputs.from_bytes(damaged)
