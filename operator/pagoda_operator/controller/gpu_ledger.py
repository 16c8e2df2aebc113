"""GPUs that pods have asked for, counted as they come and go: no plan looks at the pods of all other services."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from pagoda_operator.api.names import Object
from pagoda_operator.core.pods import is_on_a_node
from pagoda_operator.planner.gpus import gpus_asked

Key = TypeVar("Key", bound=Hashable)


class GpuLedger(Generic[Key]):
    """By node name. A pod counts as it was put last, under whatever key it has, until it is dropped."""

    def __init__(self) -> None:
        self._held: dict[Key, tuple[str, int]] = {}
        self._asked: dict[str, int] = {}

    def put(self, key: Key, pod: Object) -> None:
        self.drop(key)
        if is_on_a_node(pod) and (gpus := gpus_asked(pod["spec"])):
            node = pod["spec"]["nodeName"]
            self._held[key] = node, gpus
            self._asked[node] = self._asked.get(node, 0) + gpus

    def drop(self, key: Key) -> None:
        """Forget a pod, should it be known."""
        if key in self._held:
            node, gpus = self._held.pop(key)
            _take(self._asked, node, gpus)

    def without(self, keys: Iterable[Key]) -> dict[str, int]:
        """What all pods but these have asked for."""
        asked = dict(self._asked)
        for key in keys:
            if key in self._held:
                _take(asked, *self._held[key])
        return asked


def _take(asked: dict[str, int], node: str, gpus: int) -> None:
    asked[node] -= gpus
    if not asked[node]:
        del asked[node]
