"""Which replica to give up: the one with the least work, said in the annotation that a ReplicaSet reads.

https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.core.facts import PodReport
from pagoda_operator.core.pods import is_leaving, is_ready

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"


def deletion_costs(pods: Iterable[Object], reports: Mapping[str, PodReport]) -> Mapping[str, int]:
    """The cost to write on each pod that has another one, by name: the requests that it holds.

    A pod whose work nobody knows is as dear as the busiest. Pods that are not ready go first in any case.
    """
    ready = [pod for pod in pods if is_ready(pod) and not is_leaving(pod)]
    work = {pod["metadata"]["name"]: _work(reports.get(pod["metadata"]["name"])) for pod in ready}
    most = max((requests for requests in work.values() if requests is not None), default=0)
    costs = {name: most if requests is None else requests for name, requests in work.items()}
    live = {pod["metadata"]["name"]: _cost(pod) for pod in ready}
    return {name: cost for name, cost in costs.items() if live[name] != cost}


def _work(report: PodReport | None) -> int | None:
    if report is None or report.waiting is None or report.running is None:
        return None
    return report.waiting + report.running


def _cost(pod: Object) -> int:
    """A pod without the annotation costs 0; one that holds no number is written anew."""
    text = pod["metadata"].get("annotations", {}).get(ANNOTATION, "0")
    return int(text) if text.lstrip("-").isdecimal() else -1
