"""Headlines are written at once, details together."""

import pytest

from pagoda_operator.core.urgency import LONGEST_PAUSE, PAUSE, is_urgent, pause


def status(ready="False", planned="True", generation=1, reason="Starting", scaling_ready="True", **details):
    conditions = [
        {"type": "Ready", "status": ready, "reason": reason},
        {"type": "Planned", "status": planned},
        {"type": "ScalingReady", "status": scaling_ready},
    ]
    return {"observedGeneration": generation, "conditions": conditions, **details}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, status()),
        (status(planned="Unknown"), status()),
        (status(planned="Unknown"), status(planned="False")),
        (status(), status(planned="False")),
        (status(), status(ready="True")),
        (status(ready="True"), status()),
        (status(), status(generation=2)),
        (status(), status(reason="RolloutBlocked")),
        (status(), status(lastFailure={"reason": "OutOfMemory", "pod": "p", "exitCode": 12})),
        (status(), status(scaling_ready="False")),
        (status(scaling={"desired": 1}), status(scaling={"desired": 2})),
    ],
    ids=[
        "planned",
        "model read",
        "model unreadable",
        "no plan any more",
        "ready",
        "no longer ready",
        "edited",
        "somebody has to do something",
        "an engine ended",
        "nobody scales",
        "other replicas are wanted",
    ],
)
def test_headlines_are_urgent(before, after):
    assert is_urgent(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, status(planned="Unknown")),
        (status(), status(planned="Unknown")),
        (status(), status(replicas=3, lastFailure={"reason": "Unschedulable", "pod": "p"})),
        (status(scaling_ready="Unknown"), status()),
        (status(reason="Refused"), status()),
        (status(), status(scaling={"desired": 2})),
        (status(ready="True"), status(ready="True", queue={"waiting": 3})),
        (status(), status()),
    ],
    ids=[
        "a model is being read",
        "it is read again",
        "counts, and what waits",
        "the scaler has begun",
        "nobody has to do anything any more",
        "the first number of replicas",
        "load",
        "nothing",
    ],
)
def test_details_are_not(before, after):
    assert not is_urgent(before, after)


def test_details_wait_longer_the_more_services_have_some():
    assert pause(1) == PAUSE
    assert PAUSE < pause(10) < pause(100) < pause(10_000) == LONGEST_PAUSE
