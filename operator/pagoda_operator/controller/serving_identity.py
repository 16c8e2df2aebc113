"""What every instance needs to be asked over TLS by the API server, kept fresh while it runs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from pagoda_operator.cluster.errors import ClusterError
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import CONFIG_MAP
from pagoda_operator.controller.authorities import AuthorityStore
from pagoda_operator.scaling import front_proxy
from pagoda_operator.scaling.certificates import SETTLING, Authorities, Identity
from pagoda_operator.scaling.front_proxy import FrontProxy
from pagoda_operator.scaling.tls import RotatingTls

logger = logging.getLogger(__name__)

ROUND: Final = SETTLING / 2
"""Between two looks at the authorities; another instance may have made one, which signs after `SETTLING`."""
RETRY: Final = timedelta(seconds=10)


def _now() -> datetime:
    return datetime.now(UTC)


class ServingIdentity:
    """`tls` shows a certificate for `host`, of the authorities in a Secret, and trusts the API server's front proxy."""

    def __init__(
        self, cluster: Cluster, store: AuthorityStore, host: str, *, now: Callable[[], datetime] = _now
    ) -> None:
        self.tls = RotatingTls()
        self.front_proxy: FrontProxy | None = None
        self.authorities: Authorities | None = None
        self.problem = ""
        """Why there is no certificate, or not a fresh one; empty where there is."""
        self._cluster = cluster
        self._store = store
        self._host = host
        self._now = now
        self._identity: Identity | None = None
        self._tried = asyncio.Event()

    async def run(self) -> NoReturn:
        """Keep it fresh for ever; a failure is told in `problem` and the log, and tried again."""
        while True:
            try:
                wait = await self.refresh()
            except (ClusterError, ValueError, ssl.SSLError) as error:
                wait, problem = RETRY, str(error)
            else:
                problem = ""
            if problem and problem != self.problem:
                logger.error("external metrics can't be served: %s", problem)
            self.problem = problem
            self._tried.set()
            await asyncio.sleep(wait.total_seconds())

    async def tried(self) -> None:
        """Returns once `run` has tried for the first time."""
        await self._tried.wait()

    async def refresh(self) -> timedelta:
        """Look once; returns how soon to look again. Raises ClusterError, ValueError, ssl.SSLError."""
        now = self._now()
        authorities = await self._store.current(now)
        published = await self._cluster.get(CONFIG_MAP, front_proxy.NAMESPACE, front_proxy.CONFIG_MAP)
        proxy = FrontProxy.from_config_map(published)
        if (identity := self._identity) is None or now >= identity.renew_at or authorities.bundle != self._bundle():
            identity = authorities.issue((self._host,), now)
        if (identity, proxy) != (self._identity, self.front_proxy):
            self.tls.use(identity, proxy.authorities)
        self._identity, self.front_proxy, self.authorities = identity, proxy, authorities
        return min(ROUND, identity.renew_at - now)

    def _bundle(self) -> bytes:
        return b"" if self.authorities is None else self.authorities.bundle
