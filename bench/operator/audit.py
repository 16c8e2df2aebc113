"""What one user asked of the API server between two moments, by its audit log, which may be hundreds of megabytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from e2e.informer import Key

_WRITES: Final = frozenset({"create", "update", "patch", "delete"})


@dataclass(frozen=True, slots=True)
class Call:
    """One answered request; times are time.time()."""

    verb: str
    resource: str
    key: Key
    code: int
    at: float

    @property
    def is_write(self) -> bool:
        return self.verb in _WRITES

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.code}"


def calls(log: Path, user: str) -> list[Call]:
    """All calls of a user, in the order in which they were answered."""
    return sorted(_calls(log, user), key=lambda call: call.at)


def _calls(log: Path, user: str) -> Iterator[Call]:
    mark = json.dumps(user).encode()
    with log.open("rb") as lines:
        for line in lines:
            if mark not in line or not line.endswith(b"\n"):
                continue
            event = json.loads(line)
            if event["user"]["username"] != user:
                continue
            reference = event.get("objectRef", {})
            yield Call(
                verb=event["verb"],
                resource="/".join(reference[key] for key in ("resource", "subresource") if key in reference),
                key=(reference.get("namespace", ""), reference.get("name", "")),
                code=event.get("responseStatus", {}).get("code", 0),
                at=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
            )


def table(found: Sequence[Call]) -> dict[str, int]:
    """How often each kind of call was made, the most frequent first."""
    return dict(Counter(map(str, found)).most_common())


def delays(edits: Sequence[tuple[Key, float]], found: Sequence[Call]) -> list[float]:
    """Seconds from each edit of a service's cache to the first write of its claim after it; inf where there is none."""
    writes = [call for call in found if call.resource == "persistentvolumeclaims" and call.is_write]
    result = []
    for (namespace, name), edited in edits:
        claim = (namespace, f"{name}-models")
        after = (call.at - edited for call in writes if call.key == claim and call.at >= edited - 0.05)
        result.append(max(0.0, next(after, float("inf"))))
    return result


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
