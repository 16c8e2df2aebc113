"""What the API server's audit log says of one user."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from e2e.api import Object

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class Request:
    """One answered request."""

    verb: str
    resource: str
    """With the subresource: `inferenceservices/status`."""
    namespace: str
    name: str
    code: int
    is_allowed: bool
    """By RBAC; admission may still refuse, with the same 403."""
    time: datetime

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.code} {self.verb} {self.resource} {where}"


def requests(log: Path, user: str, since: datetime | None = None) -> list[Request]:
    """All requests of the user that were answered so far, or since that moment.

    Of a whole run some are refused although the right is there: by an API server that has just been started again.
    """
    # A line that is being written has no end yet.
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    found = [_request(event) for event in map(json.loads, lines) if event["user"].get("username") == user]
    return [request for request in found if since is None or request.time >= since]


def _request(event: Object) -> Request:
    reference = event.get("objectRef", {})
    resource = "/".join(reference[key] for key in ("resource", "subresource") if key in reference)
    return Request(
        verb=event["verb"],
        resource=resource or event["requestURI"],
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        is_allowed=event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow",
        time=datetime.fromisoformat(event["stageTimestamp"]),
    )
