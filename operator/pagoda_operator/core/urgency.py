"""When a status that changed is written: its headlines at once, its details together, and the later the more is to do.

A service on its way to Ready changes its details a dozen times in a few seconds, and each of them would be a write that
another service waits for.
"""

from __future__ import annotations

from typing import Final

from pagoda_operator.api.names import Object

PAUSE: Final = 2.0
PAUSE_A_SERVICE: Final = 0.1
LONGEST_PAUSE: Final = 60.0
"""Seconds that details wait: in an idle cluster, more for each service that waits to be looked at, and at most."""


def is_urgent(before: Object, after: Object) -> bool:
    """Whether `after` is to be written at once in place of `before`: an edit was taken in, requests are answered or no
    longer, there is a plan or there is to be none."""
    if before.get("observedGeneration") not in (None, after.get("observedGeneration")):
        return True
    old, new = _truths(before), _truths(after)
    return (old["Ready"] == "True") != (new["Ready"] == "True") or new["Planned"] not in ("Unknown", old["Planned"])


def pause(waiting: int) -> float:
    """Seconds that a status' details wait since it was last written, while `waiting` services are to be looked at."""
    return min(PAUSE + PAUSE_A_SERVICE * waiting, LONGEST_PAUSE)


def _truths(status: Object) -> dict[str, str]:
    found = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    return {name: found.get(name, "Unknown") for name in ("Ready", "Planned")}
