"""The status of a Pod from the statuses of its containers, as the kubelet words it (pkg/kubelet/status/generate.go)."""

from __future__ import annotations

from collections.abc import Sequence

from pagoda_operator.api.names import Object

OWNED = ("Initialized", "ContainersReady", "Ready")
"""Conditions that are written here; others (the scheduler's PodScheduled, say) are carried along."""


def pod_status(
    previous: Object,
    *,
    init: Sequence[Object],
    main: Sequence[Object],
    restart_policy: str,
    pod_ip: str,
    now: str,
) -> Object:
    """The new status. `previous` gives the start time, the times of unchanged conditions, and others' conditions."""
    init = [{**status, "ready": _succeeded(status)} for status in init]
    initialised = all(_succeeded(status) for status in init)
    initialised_message = _message("with incomplete status", [s["name"] for s in init if not _succeeded(s)])
    unready_message = _message("with unready status", [s["name"] for s in main if not s["ready"]])
    ready = initialised and bool(main) and all(status["ready"] for status in main)
    phase = pod_phase(init=init, main=main, restart_policy=restart_policy)
    not_ready = "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"
    conditions = [
        _condition("Initialized", initialised, "ContainersNotInitialized", initialised_message),
        _condition("ContainersReady", ready, not_ready, unready_message),
        _condition("Ready", ready, not_ready, unready_message),
    ]
    before = {condition["type"]: condition for condition in previous.get("conditions", ())}
    for condition in conditions:
        old = before.get(condition["type"], {})
        unchanged = old.get("status") == condition["status"]
        condition["lastTransitionTime"] = old.get("lastTransitionTime", now) if unchanged else now
    others = [condition for type_, condition in before.items() if type_ not in OWNED]
    if "PodScheduled" not in before:
        others.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": now})
    return {
        "phase": phase,
        "conditions": [*others, *conditions],
        "startTime": previous.get("startTime", now),
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "hostIP": previous.get("hostIP", pod_ip),
        **({"initContainerStatuses": init} if init else {}),
        "containerStatuses": list(main),
    }


def pod_phase(*, init: Sequence[Object], main: Sequence[Object], restart_policy: str) -> str:
    """Pending until each container has run once; Running while one runs or will again; else Succeeded or Failed."""
    if not all(_succeeded(status) for status in init):
        failed = restart_policy == "Never" and any("terminated" in s["state"] and not _succeeded(s) for s in init)
        return "Failed" if failed else "Pending"
    if any("waiting" in s["state"] and not s["lastState"] for s in main):
        return "Pending"
    if restart_policy == "Always" or any("terminated" not in s["state"] for s in main):
        return "Running"
    if all(_succeeded(s) for s in main):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def waiting(container: Object, reason: str, message: str) -> Object:
    """The status of a container that was never started, and why."""
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
        "lastState": {},
    }


def is_ready(pod: Object) -> bool:
    """Whether a Pod may get traffic: its Ready condition is true and it is not being deleted."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _succeeded(status: Object) -> bool:
    return bool(status["state"].get("terminated", {}).get("exitCode", 1) == 0)


def _condition(type_: str, true: bool, reason: str, message: str) -> Object:
    condition: Object = {"type": type_, "status": "True" if true else "False"}
    return condition if true else {**condition, "reason": reason, "message": message}


def _message(what: str, names: Sequence[str]) -> str:
    return f"containers {what}: [{' '.join(names)}]"
