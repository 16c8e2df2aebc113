"""Room for the pods of one template: how many of them could run now, and if the service's other pods ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.pods import is_leaving, is_on_a_node
from pagoda_operator.planner.gpus import gpus_asked, open_nodes
from pagoda_operator.planner.nodes import PRODUCT_LABEL

UNLIMITED: Final = 1 << 20
"""Pods: what CPUs have room for is the scheduler's to say."""


@dataclass(frozen=True, slots=True)
class Room:
    """
    held     pods of the service that hold a place
    seats    pods of the service that could be there at once: those of another shape that are there already, and
             pods of this template around them
    ever     pods of this template, were all others of the service gone
    apart    no new pod can be where the present ones are, and none elsewhere while they are: the volume forbids it
    lacking  why there is no more of it, for people: `no NVIDIA-L4 GPU is free for one more pod`
    """

    held: int
    seats: int
    ever: int
    apart: bool
    lacking: str


def room_for(template: Object, facts: Facts, *, one_node: bool) -> Room:
    """Where new pods may be, and what is free there. `one_node`: all pods of the service share a node (its cache)."""
    spec = template["spec"]
    size, selector = gpus_asked(spec), spec.get("nodeSelector", {})
    present = [pod for pod in facts.pods if _holds_a_place(pod)]
    hosts = {pod["spec"]["nodeName"] for pod in present}
    everywhere = open_nodes(facts.nodes, facts.requested, selector, spec.get("tolerations", ()))
    where = {name: free for name, free in everywhere.items() if name in hosts} if one_node and hosts else everywhere
    if not facts.nodes or (size == 0 and where):
        return Room(len(present), UNLIMITED, UNLIMITED, False, "")
    misfits = [pod for pod in present if pod["spec"]["nodeName"] not in where or gpus_asked(pod["spec"]) != size]
    apart = not where and bool(everywhere)
    beside = _groups(_without(where, misfits), size, one_node=False)
    ever = _groups(everywhere if apart else where, size, one_node=one_node)
    lacking = _lacking(size, selector, sorted(hosts) if one_node else (), apart=apart)
    return Room(len(present), len(misfits) + beside, ever, apart, lacking)


def _groups(free: Mapping[str, int], size: int, *, one_node: bool) -> int:
    """Pods of `size` GPUs that fit; onto one of the nodes, or onto all together."""
    if size == 0:
        return UNLIMITED if free else 0
    fitting = [gpus // size for gpus in free.values()]
    return max(fitting, default=0) if one_node else sum(fitting)


def _without(free: Mapping[str, int], pods: Sequence[Object]) -> dict[str, int]:
    """What is free when these pods stay."""
    held: dict[str, int] = {}
    for pod in pods:
        node = pod["spec"]["nodeName"]
        held[node] = held.get(node, 0) + gpus_asked(pod["spec"])
    return {name: max(0, gpus - held.get(name, 0)) for name, gpus in free.items()}


def _holds_a_place(pod: Object) -> bool:
    """A pod on its way out does not: its place is as good as free, and counting it would make two changes of one."""
    return is_on_a_node(pod) and not is_leaving(pod)


def _lacking(size: int, selector: Mapping[str, str], hosts: Sequence[str], *, apart: bool) -> str:
    held = f"the ReadWriteOnce cache is on {', '.join(hosts)}"
    if apart:
        return f"{held} with the present pods, and new ones may not run there"
    if size == 0:
        return "no node that is ready admits one more pod"
    gpus = "no {}GPU is free" if size == 1 else f"no node has {size} {{}}GPUs free"
    product = selector.get(PRODUCT_LABEL)
    lacking = gpus.format(f"{product} " if product else "") + " for one more pod"
    return f"{lacking}, and {held}" if hosts else lacking
