"""What a new replica takes, learned from those that started."""

import pytest

from pagoda_operator.api.status import ColdStart
from pagoda_operator.core.cold_start import cold_start_seconds, cold_starts


def started(name, *, created="10:00:00", ready="10:01:00", pulled=None, restarts=0, **changes):
    """A pod that became ready; `pulled` is when its download began and ended."""
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": f"2026-01-01T{ready}Z"}]
    status = {"conditions": conditions, "containerStatuses": [{"name": "engine", "restartCount": restarts}]}
    if pulled:
        times = {key: f"2026-01-01T{time}Z" for key, time in zip(("startedAt", "finishedAt"), pulled, strict=True)}
        status["initContainerStatuses"] = [{"name": "model", "state": {"terminated": {"exitCode": 0, **times}}}]
    metadata = {"name": name, "creationTimestamp": f"2026-01-01T{created}Z", **changes}
    return {"metadata": metadata, "spec": {}, "status": status}


def known(*seconds):
    """Starts as remembered, the newest first."""
    return tuple(
        ColdStart(pod=f"old-{i}", ready=f"2026-01-01T09:0{9 - i}:00Z", seconds=each) for i, each in enumerate(seconds)
    )


@pytest.mark.parametrize(
    ("pod", "seconds"),
    [
        pytest.param(started("p"), 60, id="from its creation until it is ready"),
        pytest.param(started("p", pulled=("10:00:05", "10:00:45")), 20, id="without the download, which is paid once"),
        pytest.param(started("p", restarts=1), None, id="not one that started twice"),
        pytest.param(started("p", deletionTimestamp="2026-01-01T10:02:00Z"), None, id="not one that leaves"),
        pytest.param({"metadata": {"name": "p"}, "spec": {}, "status": {}}, None, id="not one that is not ready"),
    ],
)
def test_what_is_learned_of_one_start(pod, seconds):
    assert [start.seconds for start in cold_starts([pod], ())] == ([] if seconds is None else [seconds])


def test_a_start_is_learned_once():
    """A pod that loses its readiness and finds it again did not start for an hour."""
    once = cold_starts([started("p")], ())
    assert cold_starts([started("p", ready="11:00:00")], once) == once


def test_a_pod_that_is_older_than_what_is_remembered_has_started_long_ago():
    """Its own start is forgotten by now, and only its readiness is new: a node that was away for a moment."""
    starts = known(1, 2, 3, 4, 5)
    assert cold_starts([started("p", created="08:00:00", ready="11:00:00")], starts) == starts


def test_the_latest_five_are_remembered_after_their_pods_are_gone():
    starts = cold_starts([started("p")], known(1, 2, 3, 4, 5))
    assert [start.seconds for start in starts] == [60, 1, 2, 3, 4]
    assert cold_starts([], starts) == starts
    assert cold_starts([started(f"p-{i}", ready=f"08:00:0{i}") for i in range(9)], starts) == starts, "older ones"


@pytest.mark.parametrize(
    ("seconds", "expected"), [((), None), ((7,), 7), ((9, 3600, 8), 9), ((8, 9, 3600, 7200, 9), 9)]
)
def test_odd_starts_do_not_move_the_estimate(seconds, expected):
    assert cold_start_seconds(known(*seconds)) == expected
