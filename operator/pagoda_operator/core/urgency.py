"""When a status that changed is written: its headlines at once, its details together, and the later the more there are.

A service on its way to Ready changes its details a dozen times in a few seconds, and each of them would be a write that
another service waits for. So details wait a moment for what comes next, and services share a rate of writes for them.
"""

from __future__ import annotations

from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.core.reasons import BLOCKED

PAUSE: Final = 2.0
PAUSE_A_SERVICE: Final = 0.2
LONGEST_PAUSE: Final = 180.0
"""Seconds that details wait: of one service alone, more for each other service whose details wait too, and at most."""


def is_urgent(before: Object, after: Object) -> bool:
    """Whether `after` is to be written at once in place of `before`: an edit was taken in, requests are answered or no
    longer, there is a plan or there is to be none, somebody has to do something, an engine has ended, other replicas
    are wanted, or nobody sets them any more."""
    if before.get("observedGeneration") not in (None, after.get("observedGeneration")):
        return True
    old, new = _conditions(before), _conditions(after)
    ready = [conditions["Ready"]["status"] == "True" for conditions in (old, new)]
    planned = new["Planned"]["status"]
    blocked = [{c["reason"] for c in conditions.values() if c["reason"] in BLOCKED} for conditions in (old, new)]
    scaled = [conditions["ScalingReady"]["status"] for conditions in (old, new)]
    return (
        ready[0] != ready[1]
        or planned not in ("Unknown", old["Planned"]["status"])
        or bool(blocked[1] - blocked[0])
        or scaled == ["True", "False"]
        or _crash(after) not in (None, _crash(before))
        or _desired(before) not in (None, _desired(after))
    )


def pause(untold: int) -> float:
    """Seconds that a status' details wait from when the first of them changed, while so many services have such."""
    return min(PAUSE + PAUSE_A_SERVICE * (untold - 1), LONGEST_PAUSE)


def _conditions(status: Object) -> dict[str, Object]:
    untold = {"status": "Unknown", "reason": ""}
    named = dict.fromkeys(("Ready", "Planned", "ScalingReady"), untold)
    return named | {condition["type"]: untold | condition for condition in status.get("conditions", [])}


def _crash(status: Object) -> tuple[str, str] | None:
    """An engine's end that was told last; what merely waits is none."""
    failure = status.get("lastFailure") or {}
    return None if failure.get("exitCode") is None else (failure["pod"], failure["reason"])


def _desired(status: Object) -> int | None:
    desired = (status.get("scaling") or {}).get("desired")
    return None if desired is None else int(desired)
