"""A node as pods see it: its labels, what keeps them away, and its GPUs, read from labels as GPU Feature Discovery
writes them.

    nvidia.com/gpu.product   NVIDIA-H100-80GB-HBM3; -SHARED where time-sliced, -MIG-1g.10gb where partitioned
    nvidia.com/gpu.memory    MiB of one GPU; of one slice under the MIG strategy `single`; undivided under time-slicing
    nvidia.com/gpu.replicas  pods that share one GPU under time-slicing

Counts are `status.allocatable`, never the label `nvidia.com/gpu.count`, which describes hardware and not what can be
scheduled. Source: github.com/NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from pagoda_operator.api import quantity
from pagoda_operator.api.names import Object

GPU_RESOURCE: Final = "nvidia.com/gpu"
PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
MEMORY_LABEL: Final = "nvidia.com/gpu.memory"


@dataclass(frozen=True, slots=True)
class Node:
    """Read once and asked by every plan.

    taints       those that keep pods away which don't tolerate them
    gpus         allocatable ones
    product      of its GPUs; empty where the node has none, or does not say which
    memory_mib   of one GPU; 0 where `product` is empty
    schedulable  ready, and not cordoned
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Object, ...] = ()
    gpus: int = 0
    product: str = ""
    memory_mib: int = 0
    schedulable: bool = True

    @classmethod
    def of(cls, node: Object) -> Self:
        """A Kubernetes Node."""
        metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
        labels = metadata.get("labels", {})
        gpus = int(quantity.parse(status.get("allocatable", {}).get(GPU_RESOURCE, "0")))
        product, memory = labels.get(PRODUCT_LABEL, ""), labels.get(MEMORY_LABEL, "")
        known = gpus > 0 and bool(product) and memory.isdecimal() and int(memory) > 0
        ready = all(c["status"] == "True" for c in status.get("conditions", []) if c["type"] == "Ready")
        return cls(
            name=metadata["name"],
            labels=labels,
            taints=tuple(taint for taint in spec.get("taints", []) if _keeps_away(taint)),
            gpus=gpus,
            product=product if known else "",
            memory_mib=int(memory) if known else 0,
            schedulable=ready and not spec.get("unschedulable", False),
        )

    def admits(self, selector: Mapping[str, str], tolerations: Sequence[Object]) -> bool:
        """Whether a pod with this selector and these tolerations may be here, but for what passes by itself."""
        if selector and any(self.labels.get(key) != value for key, value in selector.items()):
            return False
        return all(any(_tolerates(toleration, taint) for toleration in tolerations) for taint in self.taints)

    def free(self, requested: Mapping[str, int]) -> int:
        """GPUs that are not asked for yet; `requested` is by node name."""
        return max(0, self.gpus - requested.get(self.name, 0))


def _keeps_away(taint: Object) -> bool:
    """Taints under node.kubernetes.io/ are the node's moods (not-ready, unschedulable, memory-pressure), which pass."""
    return taint["effect"] in ("NoSchedule", "NoExecute") and not taint["key"].startswith("node.kubernetes.io/")


def _tolerates(toleration: Object, taint: Object) -> bool:
    """As k8s.io/component-helpers/scheduling/corev1 `ToleratesTaint`."""
    if toleration.get("effect", "") not in ("", taint["effect"]):
        return False
    if toleration.get("key", "") not in ("", taint["key"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")
