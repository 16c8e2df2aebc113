"""Events on a service (`kubectl describe`): one for each turn of a headline condition and each change of its replicas,
none in a steady state."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from pagoda_operator.api.names import FIELD_MANAGER, Object
from pagoda_operator.cluster.errors import ClusterError
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import EVENT
from pagoda_operator.controller.ownership import ServiceKey, key_of
from pagoda_operator.controller.store import condition
from pagoda_operator.core.reasons import BLOCKED

logger = logging.getLogger(__name__)

TOLD: Final = ("Planned", "Ready")
"""The conditions whose turns are told."""
MESSAGE_LIMIT: Final = 1024
"""Characters that the API allows in an Event's message."""


def turns(before: Object, after: Object) -> Iterator[tuple[str, str, str]]:
    """(type, reason, message) of each Event that two states of a service are apart.

    A condition that is Unknown, or that was never True and is False only because its time has not come, is no news;
    a failure is, as often as its reason changes.
    """
    for name in TOLD:
        old, new = condition(before, name), condition(after, name)
        if (old.get("status"), old.get("reason")) == (new.get("status"), new.get("reason")):
            continue
        if new.get("status") == "True":
            # A plan is what every service gets at first; it is news where there was to be none.
            if old.get("status") == "False" or (name == "Ready" and old.get("status") != "True"):
                yield "Normal", name, new.get("message", "")
        elif new.get("status") == "False" and (
            name == "Planned" or old.get("status") == "True" or new.get("reason") in BLOCKED
        ):
            yield "Warning", new.get("reason", f"Not{name}"), new.get("message", "")
    if (decision := _last_decision(after)) not in (None, _last_decision(before)):
        word = "ScaledOut" if decision["to"] > decision["from"] else "ScaledIn"
        yield "Normal", word, f"from {decision['from']} to {decision['to']} replicas: {decision['reason']}"
    old_failure = before.get("status", {}).get("lastFailure") or {}
    new_failure = after.get("status", {}).get("lastFailure") or {}
    if new_failure and new_failure.get("reason") != old_failure.get("reason"):
        yield "Warning", new_failure["reason"], new_failure.get("message", "")


def _last_decision(service: Object) -> Object | None:
    decisions = service.get("status", {}).get("scaling", {}).get("lastDecisions")
    return decisions[0] if decisions else None


class EventRecorder:
    """Writes Events; one that can't be written is logged and lost, since the status says the same."""

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self._cluster = cluster
        self._instance = instance
        self._refused: dict[ServiceKey, str] = {}

    async def status_refused(self, service: Object, message: str) -> None:
        """Tell, once for each wording, that the status can't be written: it can't say so itself."""
        key = key_of(service)
        if self._refused.get(key) == message:
            return
        self._refused[key] = message
        await self._tell(service, "Warning", "StatusRefused", f"the status is old: {message}")

    def forget(self, key: ServiceKey) -> None:
        """The service is gone."""
        self._refused.pop(key, None)

    async def record(self, before: Object, after: Object) -> None:
        """Tell how a service turned from one state to the next."""
        self._refused.pop(key_of(after), None)
        for type_, reason, message in turns(before, after):
            await self._tell(after, type_, reason, message)

    async def _tell(self, service: Object, type_: str, reason: str, message: str) -> None:
        try:
            await self._cluster.create(EVENT, self._event(service, type_, reason, message))
        except ClusterError as error:
            logger.warning("event %s was lost: %s", reason, error, extra={"service": str(key_of(service))})

    def _event(self, service: Object, type_: str, reason: str, message: str) -> Object:
        metadata = service["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": service["apiVersion"],
                "kind": service["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": type_,
            "reason": reason,
            "message": message[:MESSAGE_LIMIT],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
