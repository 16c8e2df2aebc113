"""The PersistentVolumeClaim that caches the model."""

from __future__ import annotations

from pagoda_operator.api import quantity
from pagoda_operator.api.names import Object
from pagoda_operator.builders.metadata import metadata
from pagoda_operator.builders.workload import Workload


def persistent_volume_claim(workload: Workload, live: Object | None, *, may_grow: bool = True) -> Object:
    """The claim; where one is `live`, what can't be changed in it stays as it is.

    A claim's class and access mode are immutable, and its size never shrinks: asking for it would be refused again and
    again. With `may_grow` false (a growth was refused) the size stays too.
    """
    cache = workload.spec.cache
    spec: Object = {"accessModes": [cache.access_mode], "resources": {"requests": {"storage": wanted_size(workload)}}}
    if cache.storage_class_name:
        spec["storageClassName"] = cache.storage_class_name
    if live is not None:
        kept = live["spec"]
        spec["accessModes"] = kept["accessModes"]
        spec.pop("storageClassName", None)
        if "storageClassName" in kept:
            spec["storageClassName"] = kept["storageClassName"]
        size = kept["resources"]["requests"]["storage"]
        if not may_grow or quantity.parse(size) >= quantity.parse(wanted_size(workload)):
            spec["resources"] = {"requests": {"storage": size}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(workload, "model-cache", name=workload.claim_name, owned=not cache.retain),
        "spec": spec,
    }


def wanted_size(workload: Workload) -> str:
    """The spec's size, or the download and a quarter more for the file system and unfinished parts."""
    asked = workload.spec.cache.size
    return quantity.canonical(asked) if asked is not None else quantity.gib(workload.download_bytes * 5 // 4)


def unheeded(workload: Workload, claim: Object) -> str | None:
    """What the spec asks of the cache and this claim can't give, as a sentence with the way out; or None."""
    cache, spec = workload.spec.cache, claim["spec"]
    size = spec["resources"]["requests"]["storage"]
    differences = []
    if cache.storage_class_name and cache.storage_class_name != spec.get("storageClassName"):
        differences.append(f"storageClassName is {spec.get('storageClassName')}")
    if [cache.access_mode] != spec["accessModes"]:
        differences.append(f"accessMode is {', '.join(spec['accessModes'])}")
    if cache.size is not None and quantity.parse(size) != quantity.parse(cache.size):
        differences.append(f"size is {size}")
    if not differences:
        return None
    return (
        f"the claim {workload.claim_name} exists and its {', its '.join(differences)}, which can't become what "
        "spec.cache asks; delete the claim and the pods to have it made anew"
    )
