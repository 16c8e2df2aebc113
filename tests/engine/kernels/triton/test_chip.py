"""Which shapes a GPU's shared memory holds, reckoned before anything is compiled."""

import pytest
import torch

from pagoda_engine.kernels.triton.chip import Chip, full_prefill_bytes

ADA, AMPERE, HOPPER = (Chip(1, kib << 10) for kib in (99, 163, 227))


def test_float32_prompts_take_their_queries_keys_values_and_scores():
    """64 rows of 256 queries, 16 tokens of 256 keys and values, 64 times 16 scores; 4 bytes a row and 8 a token.

    What compilers make of it is compared in test_compiled_attention.py.
    """
    assert full_prefill_bytes(64, 256, 256) == 4 * (64 * 256 + 16 * 512 + 64 * 16) + 4 * 64 + 8 * 16 == 102_784


@pytest.mark.parametrize(
    ("chip", "group", "dim", "itemsize", "fits"),
    [
        (ADA, 64, 256, 4, False),
        (ADA, 64, 192, 4, False),  # padded to 256
        (ADA, 64, 128, 4, True),
        (ADA, 32, 256, 4, True),
        (ADA, 64, 256, 2, True),
        (AMPERE, 64, 256, 4, True),
        (HOPPER, 64, 256, 4, True),
        (HOPPER, 128, 256, 4, True),
        (AMPERE, 128, 256, 4, False),
    ],
)
def test_a_shape_that_a_chip_has_no_room_for_is_told_with_the_way_out(chip, group, dim, itemsize, fits):
    """Both numbers of bytes, so that another GPU can be chosen; and the type that takes less."""
    lacking = chip.lacks(group, dim, dim, itemsize)
    if fits:
        assert lacking is None
    else:
        assert f"take {full_prefill_bytes(group, dim, dim)} bytes" in lacking
        assert f"this GPU has {chip.shared}; --dtype bfloat16 takes less" in lacking


def test_where_kernels_are_interpreted_any_shape_fits():
    assert Chip.of(torch.device("cpu")).lacks(128, 256, 256, 4) is None
