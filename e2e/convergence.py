"""Whether a namespace is as its InferenceServices want it: the one question after every fault.

Reckoned from the specs alone, by rules of its own: what proves the operator must not share its mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from e2e.api import Api, Object

SERVICES = "InferenceService"
PATHS: Mapping[str, str] = {
    SERVICES: "/apis/pagoda.dev/v1alpha1/namespaces/{}/inferenceservices",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "Pod": "/api/v1/namespaces/{}/pods",
}
SCALED_OBJECTS = "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects"
"""Not in every cluster, and not looked at here."""
CHILDREN = tuple(PATHS)[1:7]
OURS = {"app.kubernetes.io/managed-by": "pagoda-operator"}
SERVICE_LABEL = "pagoda.dev/service"

World = Mapping[str, Sequence[Object]]
"""All objects of a namespace, by kind."""


async def look(api: Api, namespace: str) -> World:
    return {kind: (await api.get(path.format(namespace)))["items"] for kind, path in PATHS.items()}


def problems(world: World) -> list[str]:
    """What is not as it should be, a sentence each; empty where spec, children and status say the same."""
    return [*_stuck(world), *_strays(world), *(p for s in world[SERVICES] for p in _problems_of(s, world))]


def remains(world: World) -> list[str]:
    """What is left in a namespace that has no InferenceService any more."""
    found = [(kind, obj) for kind in PATHS for obj in world[kind]]
    return [f"{kind} {_name(obj)} is left" for kind, obj in found if kind == SERVICES or _is_ours(obj)]


def _stuck(world: World) -> Iterator[str]:
    for kind in PATHS:
        for obj in world[kind]:
            if "deletionTimestamp" in obj["metadata"]:
                yield f"{kind} {_name(obj)} is still being deleted"


def _strays(world: World) -> Iterator[str]:
    wanted = {child: service for service in world[SERVICES] for child in _wanted(service)}
    for kind in CHILDREN:
        for obj in world[kind]:
            if not _is_ours(obj):
                continue
            service = wanted.pop((kind, _name(obj)), None)
            if service is None:
                yield f"{kind} {_name(obj)} is nobody's: an orphan, or one too many"
            elif _controller(obj) != service["metadata"]["uid"]:
                yield f"{kind} {_name(obj)} belongs to a former {_name(service)}"
    for kind, name in wanted:
        yield f"{kind} {name} is missing"


def _wanted(service: Object) -> Iterator[tuple[str, str]]:
    name = _name(service)
    yield from ((kind, name) for kind in ("ServiceAccount", "Service", "Deployment", "PodDisruptionBudget"))
    yield "PersistentVolumeClaim", f"{name}-models"
    if service["spec"].get("autoscaling"):
        yield "HorizontalPodAutoscaler", name


def _problems_of(service: Object, world: World) -> Iterator[str]:
    name, spec = _name(service), service["spec"]
    by_kind = {kind: next((obj for obj in world[kind] if _name(obj) == name), None) for kind in CHILDREN}
    deployment, front, scaler = (by_kind[kind] for kind in ("Deployment", "Service", "HorizontalPodAutoscaler"))
    if deployment is not None:
        yield from _differences(
            name,
            {
                "Deployment's replicas": (deployment["spec"]["replicas"], spec["replicas"]),
                "--max-num-seqs": (_argument(deployment, "--max-num-seqs"), str(spec["engine"]["maxNumSeqs"])),
                "pods": (len(_pods(name, world)), spec["replicas"]),
                "ReplicaSets in use": (len(_in_use(deployment, world)), min(spec["replicas"], 1)),
                "status.replicas": (service.get("status", {}).get("replicas"), spec["replicas"]),
            },
        )
    if front is not None:
        yield from _differences(
            name,
            {
                "Service's selector": (front["spec"]["selector"].get(SERVICE_LABEL), name),
                "Service's label": (front["metadata"]["labels"].get("app.kubernetes.io/part-of"), "pagoda"),
            },
        )
    if scaler is not None and spec.get("autoscaling"):
        found = scaler["spec"]["maxReplicas"]
        yield from _differences(name, {"HPA's maxReplicas": (found, spec["autoscaling"]["maxReplicas"])})
    yield from _status_problems(service)


def _status_problems(service: Object) -> Iterator[str]:
    name, status = _name(service), service.get("status", {})
    generation = service["metadata"]["generation"]
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    ready = "Unschedulable" if service["spec"]["replicas"] else "ScaledToZero"
    yield from _differences(
        name,
        {
            "observedGeneration": (status.get("observedGeneration"), generation),
            "generations of conditions": ({c["observedGeneration"] for c in conditions.values()}, {generation}),
            "Planned": (conditions.get("Planned", {}).get("status"), "True"),
            "Ready's reason": (conditions.get("Ready", {}).get("reason"), ready),
        },
    )


def _differences(name: str, pairs: Mapping[str, tuple[object, object]]) -> Iterator[str]:
    for what, (found, expected) in pairs.items():
        if found != expected:
            yield f"{name}: {what}: {found!r} instead of {expected!r}"


def _pods(name: str, world: World) -> list[Object]:
    return [pod for pod in world["Pod"] if pod["metadata"].get("labels", {}).get(SERVICE_LABEL) == name]


def _in_use(deployment: Object, world: World) -> list[Object]:
    owned = [obj for obj in world["ReplicaSet"] if _controller(obj) == deployment["metadata"]["uid"]]
    return [obj for obj in owned if obj["spec"]["replicas"]]


def _argument(deployment: Object, flag: str) -> str | None:
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    return arguments[arguments.index(flag) + 1] if flag in arguments else None


def _controller(obj: Object) -> str | None:
    return next((o["uid"] for o in obj["metadata"].get("ownerReferences", ()) if o.get("controller")), None)


def _is_ours(obj: Object) -> bool:
    return OURS.items() <= obj["metadata"].get("labels", {}).items()


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
