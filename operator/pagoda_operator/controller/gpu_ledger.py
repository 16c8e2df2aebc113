"""GPUs that pods have asked for, counted as they come and go: no plan looks at the pods of all other services."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.planner.gpus import gpus_asked

_OVER: Final = ("Succeeded", "Failed")


class GpuLedger:
    """By node name. Each pod is added once and removed once, in the same state."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}

    def add(self, pod: Object) -> None:
        _count(self._asked, pod, 1)

    def remove(self, pod: Object) -> None:
        _count(self._asked, pod, -1)

    def without(self, pods: Iterable[Object]) -> dict[str, int]:
        """What all pods but these, which are among them, have asked for."""
        asked = dict(self._asked)
        for pod in pods:
            _count(asked, pod, -1)
        return asked


def _count(asked: dict[str, int], pod: Object, times: int) -> None:
    node = pod["spec"].get("nodeName")
    if not node or pod.get("status", {}).get("phase") in _OVER or not (gpus := gpus_asked(pod["spec"])):
        return
    asked[node] = asked.get(node, 0) + times * gpus
    if not asked[node]:
        del asked[node]
