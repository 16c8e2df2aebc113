"""The replica with the least work is the cheapest."""

import pytest

from pagoda_operator.core.deletion_cost import ANNOTATION, deletion_costs
from pagoda_operator.core.facts import PodReport


def pod(name, *, ready=True, cost=None, leaving=False):
    metadata = {"name": name, "annotations": {} if cost is None else {ANNOTATION: cost}}
    metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}}


def report(waiting, running):
    return PodReport(waiting=waiting, running=running)


@pytest.mark.parametrize(
    ("pods", "reports", "written"),
    [
        pytest.param(
            [pod("a"), pod("b")], {"a": report(1, 7), "b": report(0, 2)}, {"a": 8, "b": 2}, id="requests that it holds"
        ),
        pytest.param([pod("a"), pod("b")], {"a": report(0, 3), "b": report(0, 0)}, {"a": 3}, id="none: 0 as without"),
        pytest.param([pod("a", cost="9")], {"a": report(0, 0)}, {"a": 0}, id="what an earlier decrease left"),
        pytest.param([pod("a", cost="3")], {"a": report(1, 2)}, {}, id="nothing where it is right already"),
        pytest.param([pod("a", cost="dear")], {"a": report(0, 0)}, {"a": 0}, id="what is no number"),
        pytest.param([pod("a"), pod("b")], {"a": report(0, 4)}, {"a": 4, "b": 4}, id="unknown: as dear as the busiest"),
        pytest.param([pod("a"), pod("b")], {"b": report(0, None)}, {}, id="nobody is known"),
        pytest.param([pod("a", ready=False)], {"a": report(0, 4)}, {}, id="not ready: first in any case"),
        pytest.param([pod("a", leaving=True)], {"a": report(0, 4)}, {}, id="leaving already"),
    ],
)
def test_the_costs_that_are_written(pods, reports, written):
    assert deletion_costs(pods, reports) == written
