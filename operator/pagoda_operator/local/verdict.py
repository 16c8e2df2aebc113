"""Whether a service that is starting got there, or never will: what a person watching would conclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagoda_engine.contract import ExitCode
from pagoda_operator.api.names import Object

HOPELESS = frozenset(
    {
        ExitCode.USAGE,
        ExitCode.MODEL_NOT_FOUND,
        ExitCode.MODEL_CORRUPT,
        ExitCode.MODEL_UNSUPPORTED,
        ExitCode.PORT_IN_USE,
        ExitCode.OUT_OF_MEMORY,
        ExitCode.NO_SPACE,
        ExitCode.ACCESS_DENIED,
        ExitCode.DEVICE_NOT_FOUND,
    }
)
"""Exit codes after which trying again can't help; after others one more try is worth it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A start that failed: sentences for the user, and the code to end with."""

    lines: tuple[str, ...]
    exit_code: int


def is_serving(service: Object) -> bool:
    """Whether the service is ready by its current spec."""
    ready = condition(service, "Ready")
    return ready.get("status") == "True" and ready.get("observedGeneration") == service["metadata"]["generation"]


def failure(service: Object, pods: Sequence[Object]) -> Failed | None:
    """Why the service will not become ready without help; None while there is hope."""
    planned, last = condition(service, "Planned"), service.get("status", {}).get("lastFailure", {})
    if planned.get("status") == "False":
        return _failed(service, planned, last)
    code = last.get("exitCode")
    # The status follows the pods by a moment; without its word there would be nothing to tell.
    if code in HOPELESS or (last and any(_gave_up(pod) for pod in pods)):
        return _failed(service, condition(service, "Ready"), last)
    return None


def condition(service: Object, type_: str) -> Object:
    """A condition of the service, empty where it is not told yet."""
    conditions = service.get("status", {}).get("conditions", ())
    return next((dict(c) for c in conditions if c["type"] == type_), {})


def _gave_up(pod: Object) -> bool:
    """Whether a container of the pod crashed again after a restart, or can't be made at all."""
    status = pod.get("status", {})
    statuses = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    reasons = {s["state"].get("waiting", {}).get("reason") for s in statuses}
    return bool(reasons & {"CrashLoopBackOff", "CreateContainerConfigError"})


def _failed(service: Object, why: Object, last: Object) -> Failed:
    lines = [f"{service['metadata']['name']} is not ready: {why.get('reason', 'Unknown')}: {why.get('message', '')}"]
    code = last.get("exitCode")
    if last:
        ended = f", exit code {code}" if code is not None else ""
        words = "" if last["message"] in lines[0] else f": {last['message']}"  # a traceback is long enough once
        lines.append(f"last failure: {last['reason']} (pod {last['pod']}{ended}){words}")
    return Failed(tuple(lines), code if code in set(ExitCode) else ExitCode.CRASHED)
