"""Resources of the containers of an engine pod."""

from __future__ import annotations

from pagoda_operator.api.names import Object
from pagoda_operator.api.quantity import canonical, gib
from pagoda_operator.builders.workload import Workload
from pagoda_operator.planner.nodes import GPU_RESOURCE


def engine_resources(workload: Workload) -> Object:
    """The planner's requests, each entry replaced by the spec's. There is no limit but the spec's and the GPUs'.

    Where the spec limits what it does not request, the planner's request yields too: it might exceed the limit, and the
    API server makes the limit the request.
    """
    asked, placement = workload.spec.resources, workload.placement
    planned = {"cpu": "1" if placement.gpu is None else "2", "memory": gib(placement.memory_bytes)}
    requests = {name: amount for name, amount in planned.items() if name not in asked.limits}
    requests |= {name: canonical(amount) for name, amount in asked.requests.items()}
    limits = {name: canonical(amount) for name, amount in asked.limits.items()}
    if placement.gpu is not None:
        limits[GPU_RESOURCE] = str(placement.tensor_parallel)
    result: Object = {"requests": requests} if requests else {}
    if limits:
        result["limits"] = limits
    return result


def pull_resources() -> Object:
    """A download needs little, and less than the engine after it, so that it costs the pod nothing."""
    return {"requests": {"cpu": "100m", "memory": "256Mi"}}


def shm_size(workload: Workload) -> str:
    """Size of /dev/shm: NCCL's and the ranks' shared memory, a GiB each; a replica of one process needs little."""
    ranks = workload.placement.tensor_parallel
    return f"{ranks}Gi" if ranks > 1 else "256Mi"
