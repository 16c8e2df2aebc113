"""Looks at places of children that foreign objects hold, so that ours come as soon as those go.

The watches select by the operator's own label, and never tell of a foreign object's end. There are few such places, so
each is looked at by a GET; many share the pace of `LOOKS` a second, so that a mistake made a thousand times costs no
more than one made ten times.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from pagoda_operator.cluster.errors import ClusterError, NotFound
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import resource_of_kind
from pagoda_operator.controller.ownership import ServiceKey

logger = logging.getLogger(__name__)

PERIOD: Final = 1.0
LOOKS: Final = 10.0

Place = tuple[ServiceKey, str, str]
"""Whose child, its kind and its name."""


class Vigil:
    """`held` says which places to look at; `freed` is told of each that is free now."""

    def __init__(
        self, cluster: Cluster, held: Callable[[], Iterable[Place]], freed: Callable[[ServiceKey, str, str], None]
    ) -> None:
        self._cluster = cluster
        self._held = held
        self._freed = freed

    async def run(self) -> NoReturn:
        """Look for ever."""
        while True:
            await asyncio.sleep(PERIOD)
            for place in list(self._held()):
                await self._look(*place)
                await asyncio.sleep(1 / LOOKS)

    async def _look(self, key: ServiceKey, kind: str, name: str) -> None:
        try:
            await self._cluster.get(resource_of_kind(kind), key.namespace, name)
        except NotFound:
            self._freed(key, kind, name)
        except ClusterError as error:
            logger.warning("%s %s can't be looked at: %s", kind, name, error, extra={"service": str(key)})
