"""The Nodes of the cluster: what a kubelet and NVIDIA's GPU feature discovery (GFD) write of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from e2e.api import Object

from pagoda_operator.local.clock import timestamp

LEASE_SECONDS = 40
RENEW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU model in GFD's words; memory in MiB, as the driver reports it."""

    product: str
    memory: int


H100 = Gpu("NVIDIA-H100-80GB-HBM3", 81559)
L4 = Gpu("NVIDIA-L4", 23034)


@dataclass(frozen=True, slots=True)
class Machine:
    """A node as it is registered. What it claims to have need not be there: pods run as processes of this machine."""

    name: str
    cpu: int = 32
    memory: str = "256Gi"
    gpu: Gpu | None = None
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_object(self, address: str) -> Object:
        """The Node that a kubelet registers, with GFD's labels and taint-free."""
        resources = {"cpu": str(self.cpu), "memory": self.memory, "pods": "110", "ephemeral-storage": "500Gi"}
        if self.gpu:
            resources["nvidia.com/gpu"] = str(self.gpus)
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": self._labels()},
            "status": {
                "capacity": resources,
                "allocatable": resources,
                "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": self.name}],
                "conditions": [ready_condition()],
                "nodeInfo": {
                    **dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"), ""),
                    **dict.fromkeys(("kubeletVersion", "kubeProxyVersion"), "v1.36.3"),
                    "containerRuntimeVersion": "process://1",
                    "operatingSystem": "linux",
                    "architecture": "amd64",
                },
            },
        }

    def _labels(self) -> dict[str, str]:
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        if self.gpu:
            labels |= {
                "nvidia.com/gpu.present": "true",
                "nvidia.com/gpu.product": self.gpu.product,
                "nvidia.com/gpu.memory": str(self.gpu.memory),
                "nvidia.com/gpu.count": str(self.gpus),
                "nvidia.com/gpu.replicas": "1",
                "nvidia.com/mig.capable": "false",
            }
        return labels | dict(self.labels)

    def lease(self, now: str) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        }


def ready_condition() -> Object:
    now = timestamp()
    return {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the node agent runs pods",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
