"""When a status that changed is written: its headlines at once, its details together, and the later the more there are.

A service on its way to Ready changes its details a dozen times in a few seconds, and each of them would be a write that
another service waits for. So details wait a moment for what comes next, and services share a rate of writes for them.
"""

from __future__ import annotations

from typing import Final

from pagoda_operator.api.names import Object

PAUSE: Final = 2.0
PAUSE_A_SERVICE: Final = 0.2
LONGEST_PAUSE: Final = 180.0
"""Seconds that details wait: of one service alone, more for each other service whose details wait too, and at most."""


def is_urgent(before: Object, after: Object) -> bool:
    """Whether `after` is to be written at once in place of `before`: an edit was taken in, requests are answered or no
    longer, there is a plan or there is to be none."""
    if before.get("observedGeneration") not in (None, after.get("observedGeneration")):
        return True
    old, new = _truths(before), _truths(after)
    return (old["Ready"] == "True") != (new["Ready"] == "True") or new["Planned"] not in ("Unknown", old["Planned"])


def pause(untold: int) -> float:
    """Seconds that a status' details wait from when the first of them changed, while so many services have such."""
    return min(PAUSE + PAUSE_A_SERVICE * (untold - 1), LONGEST_PAUSE)


def _truths(status: Object) -> dict[str, str]:
    found = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    return {name: found.get(name, "Unknown") for name in ("Ready", "Planned")}
