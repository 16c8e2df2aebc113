"""Conditions: what was found, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pagoda_operator.api.names import Object
from pagoda_operator.api.status import Condition

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition without its times. `reason` is a stable CamelCase word; `message` a sentence that says the fix."""

    status: Truth
    reason: str
    message: str

    @property
    def holds(self) -> bool:
        return self.status == "True"


def yes(reason: str, message: str) -> Finding:
    return Finding("True", reason, message)


def no(reason: str, message: str) -> Finding:
    return Finding("False", reason, message)


def unknown(reason: str, message: str) -> Finding:
    return Finding("Unknown", reason, message)


def conditions(findings: Mapping[str, Finding], service: Object, now: datetime) -> tuple[Condition, ...]:
    """The findings as conditions, by type; one whose status did not change keeps its `lastTransitionTime`."""
    before = {condition["type"]: condition for condition in service.get("status", {}).get("conditions", [])}
    return tuple(
        Condition(
            type=type_,
            status=finding.status,
            reason=finding.reason,
            message=finding.message,
            last_transition_time=_since(finding, before.get(type_), now),
            observed_generation=service["metadata"].get("generation"),
        )
        for type_, finding in findings.items()
    )


def _since(finding: Finding, before: Object | None, now: datetime) -> str:
    if before is not None and before["status"] == finding.status:
        return str(before["lastTransitionTime"])
    return timestamp(now)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes `metav1.Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
