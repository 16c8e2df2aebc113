"""All that builders need to know of one service, whole when it is made."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from pagoda_engine.contract import MODELS_DIR, EngineArgs
from pagoda_operator.api.names import API_VERSION, KIND, Object
from pagoda_operator.api.spec import Spec
from pagoda_operator.builders.scaling import Scaling
from pagoda_operator.planner.placement import Placement

GRACE_MARGIN: Final = 10.0
"""Seconds between the engine's own last moment and the kubelet's SIGKILL."""

_QUANTISATION: Final = re.compile(r"[.-](i?q\d\w*|b?f16|f32)$")


@dataclass(frozen=True, slots=True)
class Workload:
    """One service as its pods will run: who it is, what was asked, what was planned, and where it runs.

    The fields from `image` to `tolerations` are the operator's settings of the same meaning; times are seconds.
    `replicas` is what the Deployment is to have now, which can be more than the spec asks for. `scaling` is None where
    nobody scales the service.
    """

    name: str
    namespace: str
    uid: str
    spec: Spec
    replicas: int
    placement: Placement
    download_bytes: int
    image: str
    bind_host: str
    port: int
    drain_delay: float
    shutdown_timeout: float
    run_as_user: int
    env: tuple[Object, ...]
    tolerations: tuple[Object, ...]
    scaling: Scaling | None = None

    @property
    def owner(self) -> Object:
        """The ownerReference by which children end with their service."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    @property
    def claim_name(self) -> str:
        return claim_name(self.name)

    @property
    def grace_seconds(self) -> int:
        """How long a pod may take to end."""
        asked = self.spec.termination_grace_period_seconds
        return asked or math.ceil(self.drain_delay + self.shutdown_timeout + GRACE_MARGIN)

    def engine_args(self) -> EngineArgs:
        """The engine's arguments. Of the grace period at least half is for streams, whatever the spec asks for."""
        engine, placement = self.spec.engine, self.placement
        beside = self.drain_delay + GRACE_MARGIN
        share = min(1.0, self.grace_seconds / 2 / beside)
        drain_delay = round(self.drain_delay * share, 1)
        shutdown_timeout = round(self.grace_seconds - drain_delay - GRACE_MARGIN * share, 1)
        defaults = EngineArgs(model="")
        return EngineArgs(
            model=self.spec.model.uri,
            served_model_name=(served_name(self.spec),),
            host=self.bind_host,
            port=self.port,
            download_dir=MODELS_DIR,
            device="cpu" if placement.gpu is None else "cuda",
            dtype=engine.dtype,
            max_model_len=engine.max_model_len,
            tensor_parallel_size=placement.tensor_parallel,
            gpu_memory_utilization=engine.gpu_memory_utilization,
            # On a GPU the engine measures what is left; a CPU has no such bound of its own.
            kv_cache_memory_bytes=placement.kv_bytes if placement.gpu is None else None,
            max_num_seqs=engine.max_num_seqs or defaults.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens or defaults.max_num_batched_tokens,
            shutdown_timeout=shutdown_timeout,
            drain_delay=drain_delay,
        )


def claim_name(service: str) -> str:
    """The name of a service's model cache."""
    return f"{service}-models"


def served_name(spec: Spec) -> str:
    """What requests give as `model`: the spec's word, or the URI's last part in lower case, without what only says
    where it is or how it is packed (`@revision`, `.gguf`, `.Q4_1`)."""
    if spec.model.name:
        return spec.model.name
    last = spec.model.uri.split("://", 1)[1].rsplit("/", 1)[-1].split("@")[0].lower()
    return _QUANTISATION.sub("", last.removesuffix(".gguf"))
