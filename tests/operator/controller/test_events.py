"""Events tell turns, once, and nothing else."""

import pytest

from pagoda_operator.controller.events import turns


def state(*conditions, failure=None):
    entries = [dict(zip(("type", "status", "reason", "message"), c, strict=True)) for c in conditions]
    return {"status": {"conditions": entries} | ({"lastFailure": failure} if failure else {})}


PLANNED = ("Planned", "True", "Planned", "2x H100")
UNPLANNED = ("Planned", "False", "NoGpuFits", "96 GiB do not fit 80 GiB")
STARTING = ("Ready", "False", "Starting", "0 of 1")
READY = ("Ready", "True", "Serving", "1 of 1")
CONFLICT = ("Ready", "False", "NameConflict", "Service qwen exists")
ROLLING = ("Ready", "False", "RollingOut", "replicas of the former spec are being replaced")
BLOCKED = ("Ready", "False", "RolloutBlocked", "no GPU is free")
FAILURE = {"reason": "OutOfMemory", "message": "CUDA out of memory"}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (state(), state(("Planned", "Unknown", "ReadingModel", "")), []),
        (state(), state(PLANNED, STARTING), []),
        (state(), state(UNPLANNED), [("Warning", "NoGpuFits", "96 GiB do not fit 80 GiB")]),
        (state(UNPLANNED), state(PLANNED), [("Normal", "Planned", "2x H100")]),
        (state(STARTING), state(READY), [("Normal", "Ready", "1 of 1")]),
        (state(READY), state(STARTING), [("Warning", "Starting", "0 of 1")]),
        (state(STARTING), state(CONFLICT), [("Warning", "NameConflict", "Service qwen exists")]),
        (state(ROLLING), state(BLOCKED), [("Warning", "RolloutBlocked", "no GPU is free")]),
        (state(PLANNED, READY), state(PLANNED, READY), []),
        (state(CONFLICT), state(CONFLICT), []),
        (state(STARTING), state(STARTING, failure=FAILURE), [("Warning", "OutOfMemory", "CUDA out of memory")]),
        (state(STARTING, failure=FAILURE), state(STARTING, failure=FAILURE), []),
    ],
)
def test_only_turns_are_told(before, after, told):
    assert list(turns(before, after)) == told
