"""The volumes of a pod that hold API objects, as files: ConfigMaps, Secrets, projected tokens, the downward API.

The pod runner knows folders only, so each such volume is written to a folder and becomes a hostPath.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from e2e.api import Api, Object

from pagoda_operator.local.environment import container_variables

Files = dict[str, bytes]


async def with_folders(pod: Object, folder: Path, api: Api) -> Object:
    """`pod` with every volume that holds API objects written under `folder`. Raises ApiError where one is not there."""
    volumes = []
    for volume in pod["spec"].get("volumes", ()):
        kind = next(key for key in volume if key != "name")
        if kind not in ("configMap", "secret", "projected", "downwardAPI"):
            volumes.append(volume)
            continue
        target = folder / volume["name"]
        sources = volume[kind]["sources"] if kind == "projected" else [{kind: volume[kind]}]
        for source in sources:
            _write(target, await _files(source, pod, api))
        volumes.append({"name": volume["name"], "hostPath": {"path": str(target)}})
    return {**pod, "spec": {**pod["spec"], "volumes": volumes}}


def _write(folder: Path, files: Files) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


async def _files(source: Object, pod: Object, api: Api) -> Files:
    namespace = pod["metadata"]["namespace"]
    kind, spec = next(iter(source.items()))
    if kind == "configMap":
        found = await api.get(f"/api/v1/namespaces/{namespace}/configmaps/{spec['name']}")
        content = {key: text.encode() for key, text in found.get("data", {}).items()}
        return _chosen(content, spec.get("items"))
    if kind == "secret":
        found = await api.get(f"/api/v1/namespaces/{namespace}/secrets/{spec.get('secretName') or spec['name']}")
        content = {key: base64.b64decode(text) for key, text in found.get("data", {}).items()}
        return _chosen(content, spec.get("items"))
    if kind == "serviceAccountToken":
        return {spec["path"]: (await _token(pod, spec, api)).encode()}
    if kind == "downwardAPI":
        return {item["path"]: _field(item["fieldRef"], pod) for item in spec.get("items", ())}
    raise ValueError(f"a volume of {kind} can't be written here")


async def _token(pod: Object, spec: Object, api: Api) -> str:
    """A token of the pod's ServiceAccount by the TokenRequest API, bound to the pod as a kubelet asks for it."""
    metadata = pod["metadata"]
    account = pod["spec"].get("serviceAccountName", "default")
    reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    request: Object = {"boundObjectRef": reference, "expirationSeconds": spec.get("expirationSeconds", 3600)}
    if "audience" in spec:
        request["audiences"] = [spec["audience"]]
    path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": request}
    return str((await api.create(path, body))["status"]["token"])


def _field(reference: Object, pod: Object) -> bytes:
    container = {"env": [{"name": "value", "valueFrom": {"fieldRef": reference}}]}
    return container_variables(container, pod, pod_ip="", secrets=lambda _name, _key: None)["value"].encode()


def _chosen(content: Files, items: Iterable[Object] | None) -> Files:
    return content if items is None else {item["path"]: content[item["key"]] for item in items}
