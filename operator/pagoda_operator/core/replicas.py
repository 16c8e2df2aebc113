"""How many replicas the Deployment is to have: what was asked for, and for a while those that are still loading.

A ReplicaSet gives up pods that are not ready before it looks at any cost (`ActivePodsWithRanks` in Kubernetes'
pkg/controller/controller_utils.go). So a scaler that sags for a moment would throw away minutes of loading, and ask for
the same again: the decrease waits until nothing loads any more. Where fewer are asked for than are ready already, what
loads is of no use, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pagoda_operator.api.names import Object
from pagoda_operator.core.pods import is_leaving, is_loading, is_on_a_node, is_ready


@dataclass(frozen=True, slots=True)
class Standing:
    """The replicas that there are; pods that are leaving don't count.

    current   asked of the Deployment so far
    ready     that answer requests
    loading   on their way to it, with nothing wrong
    placed    on a node
    """

    current: int
    ready: int = 0
    loading: int = 0
    placed: int = 0

    @classmethod
    def of(cls, deployment: Object, pods: Iterable[Object]) -> Standing:
        staying = [pod for pod in pods if not is_leaving(pod)]
        return cls(
            current=int(deployment["spec"].get("replicas", 1)),
            ready=sum(map(is_ready, staying)),
            loading=sum(map(is_loading, staying)),
            placed=sum(map(is_on_a_node, staying)),
        )


@dataclass(frozen=True, slots=True)
class Replicas:
    """`asked` for by the spec; `count` is what the Deployment gets, never fewer."""

    count: int
    asked: int

    @property
    def held(self) -> int:
        """Replicas that nobody asks for any more."""
        return self.count - self.asked


def replicas(asked: int, most: int | None, standing: Standing | None) -> Replicas:
    """The replicas for a service whose spec asks for `asked`, never above `most`; a service that no scaler scales has
    None there, and gets what its user asks for, at once. `standing` is None where there is no Deployment yet."""
    if most is None or standing is None or not standing.loading or asked < standing.ready:
        return Replicas(asked, asked)
    # Pods without a node are given up first by a ReplicaSet, and have nothing to lose: those may go meanwhile.
    return Replicas(max(asked, min(standing.current, standing.placed, most)), asked)
