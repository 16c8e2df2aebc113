"""How pods of a former template are replaced where there may be no room for one more.

The Deployment's own controller replaces them, within two bounds that the operator sets. With room for one more pod the
bounds are maxSurge 1, maxUnavailable 0: a new pod is ready before an old one ends. Without, that would hang: the new
pod waits for a GPU that only an old one can free. Then it is maxSurge 0 and as many unavailable as leave the others
serving. What is never traded for an update is the last replica that serves: its successor waits in the scheduler's
queue, where a node autoscaler sees it, until there is room or `spec.rollout.allowDowntime` says otherwise.

Room is counted at the start, in GPUs, so that no pod is made in vain. What can't be counted (memory, quotas, other
tenants in a namespaced installation) the scheduler tells: a new pod that it could not place for a while, though no
former one is on its way out any more: what that one holds is not lacking, its last stream is waited for. From then on
the roll-out goes one by one to its end, so that the bounds never flap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.api.spec import Spec
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.pods import deadline, is_leaving, is_unschedulable
from pagoda_operator.core.room import Room, room_for
from pagoda_operator.core.template import has_new_template

PATIENCE: Final = 120.0
"""Seconds that a new pod may be without a node: a node autoscaler brings one in a minute or two."""
SCHEDULER_SECONDS: Final = 30.0
"""How long after a pod's end the scheduler may take to use its place: it tries again within 10 s, and may be busy."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The bounds; what is special about them, for people; and seconds after which to look again without an event.

    `waits` means that nothing is replaced until there is room.
    """

    max_surge: int = 1
    max_unavailable: int = 0
    note: str = ""
    waits: bool = False
    look_again: float | None = None

    def on(self, deployment: Object) -> Object:
        """The Deployment with these bounds."""
        bounds = {"maxSurge": self.max_surge, "maxUnavailable": self.max_unavailable}
        strategy = {"type": "RollingUpdate", "rollingUpdate": bounds}
        return {**deployment, "spec": {**deployment["spec"], "strategy": strategy}}


USUAL: Final = Rollout()


def roll_out(deployment: Object, live: Object | None, spec: Spec, facts: Facts) -> Rollout:
    """The roll-out that `deployment`, as it is to be, means for the pods of the `live` one."""
    if live is None:
        return USUAL
    template, status = deployment["spec"]["template"], live.get("status", {})
    starts = has_new_template(deployment, live)
    seen = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    rolls = status.get("updatedReplicas", 0) < status.get("replicas", 0)
    if seen and not rolls and not starts:
        return USUAL
    present = _bounds(live)
    refused, look_again = _refused(facts) if rolls and not starts else (False, None)
    one_by_one = not starts and present is not None and present.max_surge == 0
    room = room_for(template, facts, one_node=spec.cache.access_mode == "ReadWriteOnce")
    decided = _decide(
        room,
        replicas=deployment["spec"]["replicas"],
        ready=status.get("readyReplicas", 0),
        full=refused or one_by_one,
        allow_downtime=spec.rollout.allow_downtime,
    )
    if not seen and not starts and present is not None:
        # What was written last is still to be taken up: not the moment to change it.
        return replace(decided, max_surge=present.max_surge, max_unavailable=present.max_unavailable)
    return replace(decided, look_again=None if decided.max_surge == 0 else look_again)


def _decide(room: Room, *, replicas: int, ready: int, full: bool, allow_downtime: bool) -> Rollout:
    """`full`: there is no room beside what is wanted, whatever was counted."""
    seats, lacking = room.seats, room.lacking
    if full and seats > replicas:
        seats, lacking = replicas, "there was no place for one more pod when it began"
    if seats > replicas:
        return USUAL
    if room.ever < 1 and not room.held:
        # Nobody loses a place: what waits for one is to wait in its new shape.
        return Rollout(0, max(1, replicas))
    if room.ever < 1:
        return Rollout(note=f"{lacking}; make room or add a node", waits=True)
    # How many go on serving while others are replaced.
    staying = 0 if ready == 0 or room.apart else min(seats, room.ever, replicas) - 1
    if staying < 1 and ready and not allow_downtime:
        fix = "make room, or set spec.rollout.allowDowntime to end what serves first"
        return Rollout(note=f"{lacking}; {fix}", waits=True)
    return Rollout(0, max(1, replicas - staying), note=f"one by one, since {lacking}")


def _refused(facts: Facts) -> tuple[bool, float | None]:
    """Whether the scheduler has no place for a pod although every former one had time to end; or when to ask again."""
    waiting = [pod for pod in facts.pods if not is_leaving(pod) and is_unschedulable(pod)]
    if not waiting:
        return False, None
    ends = [datetime.fromisoformat(deadline(pod)[0]) for pod in facts.pods if is_leaving(pod)]
    ends += [] if facts.last_leaving is None else [facts.last_leaving]
    oldest = min(datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in waiting)
    proof = max([oldest + timedelta(seconds=PATIENCE), *(end + timedelta(seconds=SCHEDULER_SECONDS) for end in ends)])
    seconds = (proof - facts.now).total_seconds()
    return (True, None) if seconds <= 0 else (False, max(1.0, seconds))


def _bounds(live: Object) -> Rollout | None:
    """The bounds that a Deployment has, if they may be ours."""
    bounds = live["spec"].get("strategy", {}).get("rollingUpdate", {})
    surge, unavailable = bounds.get("maxSurge"), bounds.get("maxUnavailable")
    if (surge, unavailable) == (1, 0):
        return USUAL
    if surge == 0 and isinstance(unavailable, int) and unavailable > 0:
        return Rollout(surge, unavailable)
    return None
