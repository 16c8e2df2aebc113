"""What a Deployment wants done about its pods now: the rolling update of Kubernetes' Deployment and ReplicaSet
controllers in one step, as a function from what is to what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pagoda_operator.api.names import Object
from pagoda_operator.core.deletion_cost import ANNOTATION
from pagoda_operator.local.pod_status import is_ready

TEMPLATE_HASH = "pod-template-hash"
"""The label that says which template a pod was made from."""

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of names that Kubernetes makes up: no vowels, so no words."""


@dataclass(frozen=True, slots=True)
class Step:
    """`create` pods of the current template are to be made, and `delete` to be deleted."""

    create: int
    delete: tuple[Object, ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment and those of its pods that are not on their way out."""

    deployment: Object
    pods: tuple[Object, ...]

    @classmethod
    def of(cls, deployment: Object, pods: Sequence[Object]) -> Rollout:
        return cls(deployment, tuple(pod for pod in pods if "deletionTimestamp" not in pod["metadata"]))

    @property
    def wanted(self) -> int:
        return int(self.deployment["spec"].get("replicas", 1))

    @property
    def template_hash(self) -> str:
        text = json.dumps(self.deployment["spec"]["template"], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=10).digest()
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest)

    @property
    def current(self) -> tuple[Object, ...]:
        """Pods of the current template."""
        return tuple(pod for pod in self.pods if pod["metadata"]["labels"].get(TEMPLATE_HASH) == self.template_hash)

    @property
    def old(self) -> tuple[Object, ...]:
        return tuple(pod for pod in self.pods if pod not in self.current)

    def step(self) -> Step:
        """The next step. While there are old pods, `maxSurge` more pods than wanted may be, and `maxUnavailable` fewer
        may be ready; without them, the wanted number."""
        surge, unavailable = self._bounds()
        room = self.wanted + (surge if self.old else 0) - len(self.pods)
        create = max(0, min(self.wanted - len(self.current), room))
        surplus = _expendable_first(self.current)[: max(0, len(self.current) - self.wanted)]
        return Step(create, (*surplus, *self._expendable_old(self.wanted - unavailable)))

    def _expendable_old(self, least: int) -> tuple[Object, ...]:
        """Old pods that may go while at least `least` pods stay ready; those that are not ready go first."""
        starting = sum(1 for pod in self.current if not is_ready(pod))
        spare = len(self.pods) - least - starting
        sick = [pod for pod in _expendable_first(self.old) if not is_ready(pod)][: max(0, spare)]
        healthy = [pod for pod in _expendable_first(self.old) if is_ready(pod)]
        ready = sum(1 for pod in self.pods if is_ready(pod))
        return (*sick, *healthy[: max(0, min(ready - least, spare - len(sick)))])

    def _bounds(self) -> tuple[int, int]:
        rolling = self.deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        return int(rolling.get("maxSurge", 1)), int(rolling.get("maxUnavailable", 0))

    def pod(self, node_name: str) -> Object:
        """A pod of the current template, to be created on a node."""
        deployment, template = self.deployment, self.deployment["spec"]["template"]
        metadata = template.get("metadata", {})
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": f"{deployment['metadata']['name']}-{self.template_hash}-",
                "namespace": deployment["metadata"]["namespace"],
                "labels": {**metadata.get("labels", {}), TEMPLATE_HASH: self.template_hash},
                "annotations": dict(metadata.get("annotations", {})),
                "ownerReferences": [
                    {
                        "apiVersion": deployment["apiVersion"],
                        "kind": deployment["kind"],
                        "name": deployment["metadata"]["name"],
                        "uid": deployment["metadata"]["uid"],
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": {**template["spec"], "nodeName": node_name},
        }

    def status(self, now: str) -> Object:
        """The Deployment's status; as in Kubernetes, a count of nothing is absent."""
        ready = sum(1 for pod in self.pods if is_ready(pod))
        updated = len(self.current)
        complete = updated == len(self.pods) == self.wanted == ready
        available = ready >= self.wanted - self._bounds()[1]
        counts = {
            "replicas": len(self.pods),
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, max(self.wanted, len(self.pods)) - ready),
        }
        conditions = [
            {
                "type": "Available",
                "status": "True" if available else "False",
                "reason": "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable",
            },
            {
                "type": "Progressing",
                "status": "True",
                "reason": "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
            },
        ]
        before = {c["type"]: c for c in self.deployment.get("status", {}).get("conditions", ())}
        for condition in conditions:
            old = before.get(condition["type"], {})
            same = old.get("status") == condition["status"]
            condition["lastTransitionTime"] = old["lastTransitionTime"] if same else now
        return {
            "observedGeneration": self.deployment["metadata"]["generation"],
            **{name: count for name, count in counts.items() if count},
            "conditions": conditions,
        }


def _expendable_first(pods: Sequence[Object]) -> list[Object]:
    """In the order in which a ReplicaSet gives pods up: not ready before ready, then by cost, then the newest first."""
    newest = sorted(pods, key=_age, reverse=True)
    return sorted(newest, key=lambda pod: (is_ready(pod), _cost(pod)))


def _cost(pod: Object) -> int:
    return int(pod["metadata"].get("annotations", {}).get(ANNOTATION, 0))


def _age(pod: Object) -> tuple[str, int]:
    # The version breaks ties within a second; a pod that is older has rarely been written later.
    return pod["metadata"]["creationTimestamp"], int(pod["metadata"].get("resourceVersion", 0))
