"""What pods say about themselves: what went wrong in them, and how far they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from pagoda_engine.contract import ExitCode, Progress, Stage
from pagoda_operator.api.names import MODEL_ANNOTATION, Object
from pagoda_operator.api.status import Failure
from pagoda_operator.builders.pod import ENGINE_CONTAINER, MODEL_CONTAINER
from pagoda_operator.core.facts import PodReport

IMAGE_PULL: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")

IMAGE_PULL_FAILED: Final = "ImagePullFailed"
CONTAINER_CONFIG: Final = "ContainerConfigError"
UNSCHEDULABLE: Final = "Unschedulable"
POD_FAILED: Final = "PodFailed"
KILLED: Final = "Killed"

FIXES: Final[Mapping[str, str]] = {
    ExitCode.OUT_OF_MEMORY.reason: "lower spec.engine.maxModelLen or spec.engine.maxNumSeqs, or give it more memory",
    ExitCode.MODEL_NOT_FOUND.reason: "check spec.model.uri",
    ExitCode.MODEL_CORRUPT.reason: "delete the cache's claim and the pods to fetch the model anew",
    ExitCode.MODEL_UNSUPPORTED.reason: "choose another model in spec.model.uri",
    ExitCode.NO_SPACE.reason: "raise spec.cache.size",
    ExitCode.ACCESS_DENIED.reason: "check spec.model.tokenSecret and that its account may read the model",
    ExitCode.FETCH_FAILED.reason: "check that pods reach the model's host; it is tried again",
    ExitCode.DEVICE_NOT_FOUND.reason: "check the driver and device plugin of the node, or set accelerator to cpu",
    ExitCode.USAGE.reason: "check spec.engine.extraArgs",
    IMAGE_PULL_FAILED: "check spec.engine.image and spec.imagePullSecrets",
    CONTAINER_CONFIG: "check the Secrets and ConfigMaps that the spec names",
    UNSCHEDULABLE: "free or add such a node, or change what the spec asks of one",
    KILLED: "see the pod's events; a liveness probe or the node's memory may have ended it",
}
"""By a failure's reason, what a user can do."""

LATE: Final = timedelta(seconds=60)
"""After a pod's deadline; a node that lives has ended it by then."""
LAST_WORDS: Final = 1000
"""Most characters of a container's last words that are kept."""


def present_problem(pods: Iterable[Object], before: Failure | None) -> Failure | None:
    """What keeps a pod from being ready now, the latest of several; None where pods only need time."""
    staying = [pod for pod in pods if not is_leaving(pod)]
    # Those that have ended for good tell something while no other has taken their place.
    concerned = [pod for pod in staying if not is_over(pod)] or staying
    found = [problem for pod in concerned if not is_ready(pod) for problem in _problems(pod)]
    return _as_before(max(found, key=_recency, default=None), before)


def last_failure(pods: Iterable[Object], before: Failure | None) -> Failure | None:
    """The latest failure of any pod. A crash is remembered when its pod is gone; what merely waits is not."""
    found = [problem for pod in pods for problem in _problems(pod)]
    crashed = before if before is not None and before.exit_code is not None else None
    latest = max((*found, *([crashed] if crashed else [])), key=_recency, default=None)
    return _as_before(latest, before)


def _as_before(problem: Failure | None, before: Failure | None) -> Failure | None:
    """The problem in the words in which it was told first: the kubelet alternates between several for one trouble, and
    the scheduler's numbers change with every pod of the cluster; but its words are news."""
    if problem is None or before is None or problem.exit_code is not None:
        return problem
    if (problem.reason, problem.pod) != (before.reason, before.pod):
        return problem
    is_news = problem.reason == UNSCHEDULABLE and _words(problem) != _words(before)
    return problem if is_news else before


def _words(problem: Failure) -> str:
    """Without numbers."""
    return re.sub(r"\d+", "", problem.message)


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def serves(pod: Object) -> bool:
    """Whether the engine has come up, so that requests may run there: a replica that is not ready for a moment still
    has its streams."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return is_ready(pod) or any(s["name"] == ENGINE_CONTAINER and s.get("started") for s in statuses)


def is_placed(pod: Object) -> bool:
    """Whether the scheduler found a node for the pod."""
    return bool(pod["spec"].get("nodeName"))


def is_on_a_node(pod: Object) -> bool:
    """Whether the pod holds what it asked for on its node: it was placed, and has not ended for good."""
    return is_placed(pod) and not is_over(pod)


def is_loading(pod: Object) -> bool:
    """Whether the pod is on its way to its first answer, and nothing is wrong with it."""
    return is_on_a_node(pod) and not (serves(pod) or is_leaving(pod) or any(_problems(pod)))


def is_leaving(pod: Object) -> bool:
    """Whether the pod is ending its streams; its place in the Deployment is no longer its own."""
    return "deletionTimestamp" in pod["metadata"]


def deadline(pod: Object) -> tuple[str, str]:
    """When a pod on its way out is ended if it has not by then, in RFC 3339, and its name, for an order."""
    return pod["metadata"]["deletionTimestamp"], pod["metadata"]["name"]


def overdue(pod: Object) -> datetime:
    """When a pod on its way out should long have ended."""
    return datetime.fromisoformat(deadline(pod)[0]) + LATE


def runs_model(pod: Object, uri: str) -> bool:
    """Whether the pod was made for this model, and not for one that the spec named before."""
    return bool(pod["metadata"].get("annotations", {}).get(MODEL_ANNOTATION) == uri)


def maker(pod: Object) -> str | None:
    """The uid of what made the pod: of a Deployment's pods, a ReplicaSet for each template."""
    owners = pod["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


def model_complete(pod: Object) -> bool:
    """Whether the pod's init container has filled the cache."""
    statuses = pod.get("status", {}).get("initContainerStatuses", [])
    done = [s.get("state", {}).get("terminated") for s in statuses if s["name"] == MODEL_CONTAINER]
    return any(state is not None and state.get("exitCode") == 0 for state in done)


def slowest_progress(pods: Iterable[Object], reports: Mapping[str, PodReport]) -> Progress | None:
    """How far the pod is that is furthest from ready: what a user waits for."""
    order = list(Stage)
    found = [
        report.progress
        for pod in pods
        if not is_leaving(pod) and not is_ready(pod)
        if (report := reports.get(pod["metadata"]["name"])) is not None and report.progress is not None
        if report.progress.stage not in (Stage.READY, Stage.DRAINING)
    ]
    return min(found, key=lambda progress: (order.index(progress.stage), progress.percent or 0.0), default=None)


def is_over(pod: Object) -> bool:
    """Whether all its containers have ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_unschedulable(pod: Object) -> bool:
    """Whether the scheduler found no node for it."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "PodScheduled" and c.get("reason") == UNSCHEDULABLE for c in conditions)


def _problems(pod: Object) -> Iterator[Failure]:
    """What is or was wrong in a pod; a pod that is leaving is past caring."""
    if is_leaving(pod):
        return
    status = pod.get("status", {})
    name, started = pod["metadata"]["name"], status.get("startTime") or pod["metadata"].get("creationTimestamp")
    if status.get("phase") == "Failed" and (reason := status.get("reason")):
        # How its containers ended follows from that.
        message = f"{reason}: {status.get('message') or 'no message'}"
        yield Failure(reason=POD_FAILED, message=message, pod=name, time=started)
        return
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == UNSCHEDULABLE:
            time = condition.get("lastTransitionTime") or started
            yield Failure(reason=UNSCHEDULABLE, message=condition.get("message", ""), pod=name, time=time)
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        waiting = container.get("state", {}).get("waiting", {})
        if (kind := waiting.get("reason")) in IMAGE_PULL or kind in CONFIG:
            reason = IMAGE_PULL_FAILED if kind in IMAGE_PULL else CONTAINER_CONFIG
            yield Failure(reason=reason, message=waiting.get("message", kind), pod=name, time=started)
        for state in (container.get("state", {}), container.get("lastState", {})):
            if (terminated := state.get("terminated")) and terminated.get("exitCode", 0) != 0:
                yield _crash(terminated, name, started)


def _crash(terminated: Object, pod: str, started: str | None) -> Failure:
    code = terminated["exitCode"]
    words = terminated.get("message", "").strip()[-LAST_WORDS:]
    if not words:
        words = f"the container ended with exit code {code} and no last words ({terminated.get('reason', 'Error')})"
    return Failure(
        reason=_crash_reason(code, terminated.get("reason", "")),
        message=words,
        exit_code=code,
        pod=pod,
        time=terminated.get("finishedAt") or started,
    )


def _crash_reason(code: int, kubelet_reason: str) -> str:
    if kubelet_reason == "OOMKilled":
        return ExitCode.OUT_OF_MEMORY.reason
    if code in set(ExitCode):
        return ExitCode(code).reason
    return KILLED if code > 128 else ExitCode.CRASHED.reason


def _recency(failure: Failure) -> tuple[str, str, str]:
    return (failure.time or "", failure.pod, failure.reason)
