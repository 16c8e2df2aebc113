"""The leader's hold on external.metrics.k8s.io: takes the group where it is free, and leaves it where it is not.

It is the operator's and not the chart's, since a chart whose APIService somebody else has made can't be installed,
while an operator looks first, and again when the other is gone. What to write and whose it is: `core.api_service`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from pagoda_operator.api.names import Object
from pagoda_operator.cluster.errors import AlreadyExists, ClusterError, Conflict, NotFound
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import API_SERVICE, CLUSTER_ROLE
from pagoda_operator.core.api_service import GROUP, NAME, Backend, api_service, foreign_holder, unavailable
from pagoda_operator.core.diff import differs, stamped

if TYPE_CHECKING:  # loads what certificates take, which only who serves needs
    from pagoda_operator.controller.serving_identity import ServingIdentity

logger = logging.getLogger(__name__)

PERIOD: Final = 10.0
SOON: Final = 2.0
"""Seconds between two looks, each one GET of one object: in general, and while the API server does not reach us."""


class ApiServiceKeeper:
    """Looks after the APIService, whenever it is asked to.

    `owner`    name of a ClusterRole, with which it goes; empty: it stays
    `holder`   who else has the group, in words; empty where it is free or ours
    `problem`  why the API server does not reach us although it is ours; empty where it does
    """

    def __init__(self, cluster: Cluster, serving: ServingIdentity, backend: Backend, owner: str = "") -> None:
        self.holder = ""
        self.problem = ""
        self.serving = serving
        self._cluster = cluster
        self._backend = backend
        self._owner = owner

    @property
    def pause(self) -> float:
        """Seconds until it should be asked again."""
        return SOON if self.problem else PERIOD

    async def ask(self) -> bool:
        """Take the group if it is free, repair what is ours, find out whose it is; returns whether that is news."""
        before = self.holder, self.problem
        try:
            await self._look()
        except ClusterError as error:
            self.problem = str(error)
        is_news = (self.holder, self.problem) != before
        if is_news:
            self._tell()
        return is_news

    async def _look(self) -> None:
        live = await self._live()
        self.holder = "" if live is None else foreign_holder(live, self._backend)
        if self.holder:
            self.problem = ""
            return
        if (authorities := self.serving.authorities) is None:
            self.problem = self.serving.problem
            return
        try:
            live = await self._write(live, authorities.bundle)
        except (AlreadyExists, Conflict) as error:
            logger.info("APIService %s changed under our hands: %s", NAME, error)
        else:
            self.problem = unavailable(live) or self.serving.problem

    async def _live(self) -> Object | None:
        try:
            return await self._cluster.get(API_SERVICE, None, NAME)
        except NotFound:
            return None

    async def _write(self, live: Object | None, bundle: bytes) -> Object:
        """Make it, or repair it where it differs; returns it as it then is."""
        wanted = stamped(api_service(self._backend, bundle, await self._owning_role(live)))
        if live is None:
            logger.info("taking %s, which nobody has", GROUP)
            return await self._cluster.create(API_SERVICE, wanted)
        if not differs(wanted, live):
            return live
        wanted["metadata"]["uid"] = live["metadata"]["uid"]
        return await self._cluster.apply(API_SERVICE, wanted, force=True)

    async def _owning_role(self, live: Object | None) -> Object | None:
        """The ClusterRole that the APIService refers to; asked for only where none refers to it yet."""
        if not self._owner:
            return None
        for reference in (live or {}).get("metadata", {}).get("ownerReferences", []):
            if (reference["kind"], reference["name"]) == (CLUSTER_ROLE.kind, self._owner):
                return {"metadata": {"name": reference["name"], "uid": reference["uid"]}}
        return await self._cluster.get(CLUSTER_ROLE, None, self._owner)

    def _tell(self) -> None:
        if self.holder:
            logger.error(
                "%s is held by %s and is not taken over; HorizontalPodAutoscalers of this operator can't read it",
                GROUP,
                self.holder,
            )
        elif self.problem:
            logger.error("%s is ours, and the API server does not reach it: %s", GROUP, self.problem)
        else:
            logger.info("%s is served by this operator", GROUP)
