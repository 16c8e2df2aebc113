"""GPU classes of a cluster, and what is free of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pagoda_operator.api import quantity
from pagoda_operator.api.names import Object
from pagoda_operator.planner.nodes import GPU_RESOURCE, Node

GPU_RESOURCES: Final = (GPU_RESOURCE, "amd.com/gpu")


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
    nodes: Iterable[Node],
    requested: Mapping[str, int],
    node_selector: Mapping[str, str],
    tolerations: Sequence[Object],
) -> tuple[GpuClass, ...]:
    """The classes that a pod with this selector and these tolerations may land on, by product.

    A node that is cordoned or not ready still belongs to its class, with nothing free: a plan must not change because
    a node reboots.
    """
    by_product: dict[str, list[Node]] = {}
    for node in nodes:
        if node.product and node.admits(node_selector, tolerations):
            by_product.setdefault(node.product, []).append(node)
    return tuple(_class(product, by_product[product], requested) for product in sorted(by_product))


def _class(product: str, nodes: list[Node], requested: Mapping[str, int]) -> GpuClass:
    free = [node.free(requested) for node in nodes if node.schedulable]
    return GpuClass(
        product=product,
        memory_mib=min(node.memory_mib for node in nodes),
        gpus_per_node=max(node.gpus for node in nodes),
        free_per_node=tuple(sorted(free, reverse=True)),
    )


def open_nodes(
    nodes: Iterable[Node],
    requested: Mapping[str, int],
    node_selector: Mapping[str, str],
    tolerations: Sequence[Object],
) -> dict[str, int]:
    """The nodes that a pod with this selector and these tolerations could be put on now, and their free GPUs."""
    return {
        node.name: node.free(requested)
        for node in nodes
        if node.schedulable and node.admits(node_selector, tolerations)
    }


def gpus_asked(pod_spec: Object) -> int:
    """GPUs that a pod holds while it runs: of its containers together, or of one that runs before them."""

    def asked(container: Object) -> int:
        resources = container.get("resources", {})
        amounts = resources.get("requests", {}) | resources.get("limits", {})
        return sum(int(quantity.parse(amounts[name])) for name in GPU_RESOURCES if name in amounts)

    together = sum(map(asked, pod_spec.get("containers", ())))
    return max([together, *map(asked, pod_spec.get("initContainers", ()))])


def unlabelled(
    nodes: Iterable[Node], node_selector: Mapping[str, str], tolerations: Sequence[Object]
) -> tuple[str, ...]:
    """Names of nodes that admit the pods and have GPUs, but not the labels that say which kind."""
    unknown = (node for node in nodes if node.gpus > 0 and not node.product)
    return tuple(sorted(node.name for node in unknown if node.admits(node_selector, tolerations)))
