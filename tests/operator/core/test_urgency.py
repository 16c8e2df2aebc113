"""Headlines are written at once, details together."""

import pytest

from pagoda_operator.core.urgency import LONGEST_PAUSE, PAUSE, is_urgent, pause


def status(ready="False", planned="True", generation=1, **details):
    conditions = [{"type": "Ready", "status": ready}, {"type": "Planned", "status": planned}]
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
    ],
    ids=["planned", "model read", "model unreadable", "no plan any more", "ready", "no longer ready", "edited"],
)
def test_headlines_are_urgent(before, after):
    assert is_urgent(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, status(planned="Unknown")),
        (status(), status(planned="Unknown")),
        (status(), status(replicas=3, lastFailure={"reason": "OutOfMemory"})),
        (status(ready="True"), status(ready="True", queue={"waiting": 3})),
        (status(), status()),
    ],
    ids=["a model is being read", "it is read again", "counts and failures", "load", "nothing"],
)
def test_details_are_not(before, after):
    assert not is_urgent(before, after)


def test_details_wait_longer_the_more_services_have_some():
    assert pause(1) == PAUSE
    assert PAUSE < pause(10) < pause(100) < pause(10_000) == LONGEST_PAUSE
