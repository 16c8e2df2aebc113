"""What a user is told of scaling: how many replicas there are to be, why, and the changes that led there."""

from __future__ import annotations

from typing import Final

from pagoda_operator.api.status import QueueStatus, ScalingDecision, ScalingStatus
from pagoda_operator.core.cold_start import cold_start_seconds, cold_starts
from pagoda_operator.core.conditions import timestamp
from pagoda_operator.core.situation import Situation

REMEMBERED: Final = 5
"""Decisions."""


def scaling_status(situation: Situation) -> ScalingStatus | None:
    """None where nothing was ever planned; while nothing can be planned, what was decided before."""
    before = ScalingStatus.remembered(situation.before.get("scaling"))
    if situation.decision.workload is None:
        return before
    starts = cold_starts(situation.pods_of_model, before.cold_starts if before and _same_model(situation) else ())
    return ScalingStatus(
        provider=_provider(situation),
        desired=situation.wanted.count,
        reason=_reason(situation),
        cold_start_seconds=cold_start_seconds(starts),
        cold_starts=starts,
        last_decisions=_decisions(situation, before),
    )


def _decisions(situation: Situation, before: ScalingStatus | None) -> tuple[ScalingDecision, ...]:
    """Compared with what was told last, and not with the Deployment: a plan that was carried out, and is made again
    before its status is written, still tells of it; so does the first one after a crash."""
    desired = situation.wanted.count
    if before is None or before.desired == desired:
        return before.last_decisions if before is not None else ()
    new = ScalingDecision.model_validate(
        {
            "time": timestamp(situation.facts.now),
            "from": before.desired,
            "to": desired,
            "reason": _reason(situation) + _occasion(situation.facts.load),
        }
    )
    return (new, *before.last_decisions)[:REMEMBERED]


def _reason(situation: Situation) -> str:
    wanted = situation.wanted
    asked = f"{_provider(situation) or 'spec.replicas'} asks for {wanted.asked}"
    if not wanted.held:
        return asked
    return (
        f"{asked}; {wanted.held} more stay until no replica is loading, since those that load would be given up first"
    )


def _occasion(load: QueueStatus | None) -> str:
    """What was going on. Only for what is told once: the numbers are others in a second."""
    return "" if load is None else f"; {load.waiting} requests waiting, {load.running} running"


def _provider(situation: Situation) -> str | None:
    workload = situation.decision.workload
    return None if workload is None or workload.scaling is None else workload.scaling.source.kind


def _same_model(situation: Situation) -> bool:
    """Another model takes another time to load."""
    remembered = situation.before.get("modelFacts", {}).get("uri")
    return bool(remembered == situation.spec.model.uri)
