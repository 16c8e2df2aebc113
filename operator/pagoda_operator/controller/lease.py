"""Leader election on a `coordination.k8s.io` Lease: of all operators, one reconciles.

The algorithm is client-go's (`tools/leaderelection`): a Lease is only trusted to be held while it keeps changing, as
seen by our own clock, so that the clocks of two machines are never compared.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import AlreadyExists, ClusterError, Conflict, NotFound
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import LEASE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds; client-go's defaults. `duration` > `renew_deadline` > `retry_period`, or two could lead at once.

    duration        others leave a Lease alone for so long after its last change
    renew_deadline  the leader gives up when it could not renew for so long
    retry_period    between two attempts, of the leader and of those who wait
    """

    duration: int = 15
    renew_deadline: float = 10.0
    retry_period: float = 2.0


class LeadershipLost(Exception):
    """Another operator leads, or may: this one must not write any more."""


class LeaseElector:
    """`acquire`, then `hold` until it returns, then stop all work at once; `release` on a clean way out."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, identity: str, times: LeaseTimes | None = None
    ) -> None:
        self.identity = identity
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._times = times or LeaseTimes()
        self._observed: Object | None = None
        self._observed_at = 0.0
        self._renewed_at = -math.inf

    def leads(self) -> bool:
        """Whether nobody else can have taken the Lease yet, by our own clock."""
        return self._clock() < self._renewed_at + self._times.renew_deadline

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while True:
            started = self._clock()
            if await self._attempt(self._times.renew_deadline):
                self._renewed_at = started
                return
            # Jitter, so that those who wait don't all ask at once.
            await asyncio.sleep(self._times.retry_period * random.uniform(1.0, 2.2))

    async def hold(self) -> None:
        """Renew the Lease; returns once it is lost or could not be renewed for `renew_deadline`."""
        while True:
            await asyncio.sleep(self._times.retry_period)
            started = self._clock()
            if await self._attempt(self._renewed_at + self._times.renew_deadline - started):
                self._renewed_at = started
            elif self._holder() != self.identity or not self.leads():
                return

    async def release(self) -> None:
        """Let the next one in at once, if the Lease is still ours."""
        if self._observed is None or self._holder() != self.identity:
            return
        spec = self._observed["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            await self._cluster.replace(LEASE, self._observed | {"spec": spec})
        except ClusterError as error:
            logger.warning("the lease was not released and runs out by itself: %s", error)
        self._observed = None

    async def _attempt(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(max(timeout, 0.0)):
                return await self._take_or_renew()
        except (ClusterError, TimeoutError) as error:
            logger.warning("lease %s/%s: %s", self._namespace, self._name, str(error) or "no answer in time")
            return False

    async def _take_or_renew(self) -> bool:
        try:
            lease = await self._cluster.get(LEASE, self._namespace, self._name)
        except NotFound:
            return await self._create()
        self._see(lease)
        spec = lease.get("spec", {})
        ours = spec.get("holderIdentity") == self.identity
        if spec.get("holderIdentity") and not ours and not self._expired(spec):
            return False
        spec = spec | {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._times.duration,
            "renewTime": _now(),
            "acquireTime": spec["acquireTime"] if ours and "acquireTime" in spec else _now(),
            "leaseTransitions": spec.get("leaseTransitions", 0) + (0 if ours else 1),
        }
        try:
            self._see(await self._cluster.replace(LEASE, lease | {"spec": spec}))
        except Conflict:
            return False  # somebody was faster
        return True

    async def _create(self) -> bool:
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._times.duration,
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": 0,
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        lease = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
        try:
            self._see(await self._cluster.create(LEASE, lease))
        except AlreadyExists:
            return False
        return True

    def _see(self, lease: Object) -> None:
        if self._observed is None or self._observed.get("spec") != lease.get("spec"):
            self._observed_at = self._clock()
        self._observed = lease

    def _expired(self, spec: Object) -> bool:
        duration = spec.get("leaseDurationSeconds", self._times.duration)
        return bool(self._clock() >= self._observed_at + duration)

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    def _holder(self) -> str | None:
        return None if self._observed is None else self._observed.get("spec", {}).get("holderIdentity")


def _now() -> str:
    """The API's MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
