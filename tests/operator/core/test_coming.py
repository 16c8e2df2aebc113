"""Requests that loading replicas will take ask for no more replicas."""

import math

import pytest

from pagoda_operator.core.coming import pressing


@pytest.mark.parametrize(
    ("waiting", "replicas", "loading", "told"),
    [
        pytest.param(15, 1, 0, 15, id="nothing loads: as it is"),
        pytest.param(15, 3, 2, 15, id="no more than was asked for already: as it is"),
        pytest.param(40, 3, 2, 15, id="what they will take is left out, and no replica is lost for it"),
        pytest.param(60, 3, 2, 28, id="what they will not take either asks for more"),
        pytest.param(0, 3, 2, 0, id="an empty queue is an empty queue"),
    ],
)
def test_what_presses(waiting, replicas, loading, told):
    """Five waiting requests per replica; one replica runs sixteen at once."""
    assert pressing(waiting, target=5, replicas=replicas, loading=loading, slots=16) == told


def test_it_can_stop_an_increase_and_never_bring_about_a_decrease():
    """For every queue: what a scaler makes of it lies between what is asked for and what the whole queue would ask."""
    for waiting in range(0, 200, 3):
        for replicas in range(6):
            for loading in range(replicas + 1):
                told = pressing(waiting, target=5, replicas=replicas, loading=loading, slots=16)
                whole, asks = math.ceil(waiting / 5), math.ceil(told / 5)
                assert min(replicas, whole) <= asks <= whole
