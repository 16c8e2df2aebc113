"""GPU classes of a cluster, read from Node labels as GPU Feature Discovery writes them.

    nvidia.com/gpu.product   NVIDIA-H100-80GB-HBM3; -SHARED where time-sliced, -MIG-1g.10gb where partitioned
    nvidia.com/gpu.memory    MiB of one GPU; of one slice under the MIG strategy `single`; undivided under time-slicing
    nvidia.com/gpu.replicas  pods that share one GPU under time-slicing

Counts are `status.allocatable`, never the label `nvidia.com/gpu.count`, which describes hardware and not what can be
scheduled. Source: github.com/NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pagoda_operator.api.names import Object

GPU_RESOURCE: Final = "nvidia.com/gpu"
GPU_RESOURCES: Final = (GPU_RESOURCE, "amd.com/gpu")
PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
MEMORY_LABEL: Final = "nvidia.com/gpu.memory"


@dataclass(frozen=True, slots=True)
class GpuClass:
    """GPUs that are alike, wherever they are: one product, since that is what a pod can select.

    product        the label's exact value, so that pods can be sent there
    memory_mib     of one GPU; the least, should nodes disagree
    gpus_per_node  most allocatable GPUs on one node: the bound of a tensor-parallel group
    free_per_node  GPUs not asked for yet, a number for each schedulable node, largest first
    """

    product: str
    memory_mib: int
    gpus_per_node: int
    free_per_node: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """For people: `H100-80GB-HBM3`."""
        return self.product.removeprefix("NVIDIA-").removeprefix("Tesla-")

    @property
    def shared(self) -> bool:
        return self.product.endswith("-SHARED")

    @property
    def partitioned(self) -> bool:
        return "-MIG-" in self.product

    def groups_free(self, size: int) -> int:
        """How many groups of `size` GPUs, each on one node, could start now."""
        return sum(free // size for free in self.free_per_node)


def gpu_classes(
    nodes: Iterable[Object],
    requested: Mapping[str, int],
    node_selector: Mapping[str, str],
    tolerations: Iterable[Object],
) -> tuple[GpuClass, ...]:
    """The classes that a pod with this selector and these tolerations may land on, by product.

    A node that is cordoned or not ready still belongs to its class, with nothing free: a plan must not change because
    a node reboots.
    """
    tolerated = tuple(tolerations)
    by_product: dict[str, list[Object]] = {}
    for node in nodes:
        if _admits(node, node_selector, tolerated) and (identity := _identity(node)):
            by_product.setdefault(identity[0], []).append(node)
    return tuple(_class(product, by_product[product], requested) for product in sorted(by_product))


def _class(product: str, nodes: list[Object], requested: Mapping[str, int]) -> GpuClass:
    free = [_free(node, requested) for node in nodes if _schedulable(node)]
    return GpuClass(
        product=product,
        memory_mib=min(int(node["metadata"]["labels"][MEMORY_LABEL]) for node in nodes),
        gpus_per_node=max(map(gpu_count, nodes)),
        free_per_node=tuple(sorted(free, reverse=True)),
    )


def open_nodes(
    nodes: Iterable[Object],
    requested: Mapping[str, int],
    node_selector: Mapping[str, str],
    tolerations: Iterable[Object],
) -> dict[str, int]:
    """The nodes that a pod with this selector and these tolerations could be put on now, and their free GPUs."""
    tolerated = tuple(tolerations)
    return {
        node["metadata"]["name"]: _free(node, requested)
        for node in nodes
        if _admits(node, node_selector, tolerated) and _schedulable(node)
    }


def _free(node: Object, requested: Mapping[str, int]) -> int:
    return max(0, gpu_count(node) - requested.get(node["metadata"]["name"], 0))


def gpu_count(node: Object) -> int:
    """Allocatable GPUs of a node."""
    return int(node.get("status", {}).get("allocatable", {}).get(GPU_RESOURCE, "0"))


def gpus_asked(pod_spec: Object) -> int:
    """GPUs that a pod holds while it runs: of its containers together, or of one that runs before them."""

    def asked(container: Object) -> int:
        resources = container.get("resources", {})
        amounts = resources.get("requests", {}) | resources.get("limits", {})
        return sum(int(amounts.get(name, 0)) for name in GPU_RESOURCES)

    together = sum(map(asked, pod_spec.get("containers", ())))
    return max([together, *map(asked, pod_spec.get("initContainers", ()))])


def unlabelled(
    nodes: Iterable[Object], node_selector: Mapping[str, str], tolerations: Iterable[Object]
) -> tuple[str, ...]:
    """Names of nodes that admit the pods and have GPUs, but not the labels that say which kind."""
    tolerated = tuple(tolerations)
    unknown = [node for node in nodes if gpu_count(node) > 0 and _identity(node) is None]
    return tuple(sorted(node["metadata"]["name"] for node in unknown if _admits(node, node_selector, tolerated)))


def _identity(node: Object) -> tuple[str, int] | None:
    """Product and memory, or None where the node has no whole GPUs or does not say which."""
    labels = node["metadata"].get("labels", {})
    product, memory = labels.get(PRODUCT_LABEL, ""), labels.get(MEMORY_LABEL, "")
    if gpu_count(node) < 1 or not product or not memory.isdecimal() or int(memory) < 1:
        return None
    return product, int(memory)


def _schedulable(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = all(c["status"] == "True" for c in conditions if c["type"] == "Ready")
    return ready and not node.get("spec", {}).get("unschedulable", False)


def _admits(node: Object, selector: Mapping[str, str], tolerations: tuple[Object, ...]) -> bool:
    if selector:
        labels = node["metadata"].get("labels", {})
        if any(labels.get(key) != value for key, value in selector.items()):
            return False
    if not (taints := node.get("spec", {}).get("taints")):
        return True
    # Taints under node.kubernetes.io/ are the node's moods (not-ready, unschedulable, memory-pressure), which pass.
    taints = [taint for taint in taints if not taint["key"].startswith("node.kubernetes.io/")]
    hard = [taint for taint in taints if taint["effect"] in ("NoSchedule", "NoExecute")]
    return all(any(_tolerates(toleration, taint) for toleration in tolerations) for taint in hard)


def _tolerates(toleration: Object, taint: Object) -> bool:
    """As k8s.io/component-helpers/scheduling/corev1 `ToleratesTaint`."""
    if toleration.get("effect", "") not in ("", taint["effect"]):
        return False
    if toleration.get("key", "") not in ("", taint["key"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")
