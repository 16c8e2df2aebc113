"""The pod of one replica: an init container that fills the model cache, and the engine.

Both run as the `restricted` Pod Security Standard demands: not root, no capabilities, a read-only root file system.
"""

from __future__ import annotations

from typing import Final

from pagoda_engine.contract import ENGINE_PORT_NAME, METRICS_PATH, MODELS_DIR, SCRATCH_DIR
from pagoda_operator.api.names import MODEL_ANNOTATION, Object
from pagoda_operator.builders.metadata import labels, selector
from pagoda_operator.builders.probes import probes
from pagoda_operator.builders.resources import engine_resources, pull_resources, shm_size
from pagoda_operator.builders.workload import Workload
from pagoda_operator.planner.nodes import PRODUCT_LABEL

ENGINE_CONTAINER: Final = "engine"
MODEL_CONTAINER: Final = "model"

ENGINE_TYPE: Final = {"inference.networking.k8s.io/engine-type": "vllm", "llm-d.ai/engine-type": "vllm"}
"""Endpoint pickers choose their metrics parser by this label; our metrics carry vLLM's names."""


def pod_template(workload: Workload) -> Object:
    return {
        "metadata": {
            "labels": {**labels(workload.name, "engine"), **ENGINE_TYPE},
            "annotations": {
                MODEL_ANNOTATION: workload.spec.model.uri,
                "kubectl.kubernetes.io/default-container": ENGINE_CONTAINER,
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(workload.port),
                "prometheus.io/path": METRICS_PATH,
            },
        },
        "spec": {
            "serviceAccountName": workload.name,
            "automountServiceAccountToken": False,
            # Variables that Docker links once made (`NAME_PORT`) would collide with the engine's own.
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": workload.grace_seconds,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": workload.run_as_user,
                "runAsGroup": workload.run_as_user,
                "fsGroup": workload.run_as_user,
                # A cache of many large files is not chowned anew at every start.
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [_model_container(workload)],
            "containers": [_engine_container(workload)],
            "volumes": [
                {"name": "models", "persistentVolumeClaim": {"claimName": workload.claim_name}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm_size(workload)}},
            ],
            **_scheduling(workload),
        },
    }


def _model_container(workload: Workload) -> Object:
    env = [*workload.env]
    if token := workload.spec.model.token_secret:
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": token.name, "key": token.key}}})
    args = ["pull", workload.spec.model.uri, "--download-dir", MODELS_DIR]
    args += ["--host", workload.bind_host, "--port", str(workload.port)]
    return {
        **_container(workload, MODEL_CONTAINER, args, env),
        "resources": pull_resources(),
        "volumeMounts": _mounts(),
    }


def _engine_container(workload: Workload) -> Object:
    engine = workload.spec.engine
    own = [variable.model_dump(by_alias=True, exclude_none=True) for variable in engine.env]
    args = ["serve", *workload.engine_args().to_argv(), *engine.extra_args]
    return {
        **_container(workload, ENGINE_CONTAINER, args, [*workload.env, *own]),
        # Not on the init container, which listens there too: port names are looked up in both, and must be unique.
        "ports": [{"name": ENGINE_PORT_NAME, "containerPort": workload.port, "protocol": "TCP"}],
        "resources": engine_resources(workload),
        **probes(workload.grace_seconds),
        "volumeMounts": [*_mounts(), {"name": "shm", "mountPath": "/dev/shm"}],
    }


def _mounts() -> list[Object]:
    return [{"name": "models", "mountPath": MODELS_DIR}, {"name": "tmp", "mountPath": SCRATCH_DIR}]


def _container(workload: Workload, name: str, args: list[str], env: list[Object]) -> Object:
    return {
        "name": name,
        "image": workload.spec.engine.image or workload.image,
        "command": ["pagoda"],
        "args": args,
        "env": _merged(
            [
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "HOME", "value": SCRATCH_DIR},
                *env,
            ]
        ),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        # A container that says nothing on /dev/termination-log still has its last words in the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _merged(env: list[Object]) -> list[Object]:
    """One entry a name, the last one's value in the first one's place: the API server keys this list by name."""
    return list({variable["name"]: dict(variable) for variable in env}.values())


def _scheduling(workload: Workload) -> Object:
    """The parts that say where the pod may run; each is absent where there is nothing to say."""
    spec, gpu = workload.spec, workload.placement.gpu
    tolerations = [*(workload.tolerations if gpu else ())]
    tolerations += [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in spec.tolerations]
    parts: Object = {
        "nodeSelector": {**spec.node_selector, **({PRODUCT_LABEL: gpu.product} if gpu else {})},
        "tolerations": tolerations,
        "affinity": _affinity(workload),
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.runtime_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
    }
    return {key: value for key, value in parts.items() if value}


def _affinity(workload: Workload) -> Object | None:
    """With a ReadWriteOnce cache all replicas stay on one node: its volume can't be attached to a second one."""
    if workload.spec.cache.access_mode != "ReadWriteOnce":
        return None
    term = {"labelSelector": {"matchLabels": selector(workload.name)}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
