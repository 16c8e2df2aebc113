"""The workers: they take keys from the queue, reconcile them, and say when a key is to be looked at again."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final, NoReturn

from pagoda_operator.cluster.errors import ClusterError, Conflict, Unavailable
from pagoda_operator.controller.lease import LeadershipLost, LeaseElector
from pagoda_operator.controller.metrics import OperatorMetrics
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.queue import WorkQueue
from pagoda_operator.controller.reconcile import Reconciler

logger = logging.getLogger(__name__)

WORKERS: Final = 16
"""How many work at once."""
RECONCILE_LIMIT: Final = 120.0
"""Seconds after which a reconcile is given up and tried again: a call that hangs must not hold its service for ever."""
OUTAGE_DELAY: Final = 30.0
RACE_DELAY: Final = 1.0
"""Longest back-off in seconds where the API server is to blame and not the service; where others were faster."""
SHORTEST_REQUEUE: Final = 0.5


class Workers:
    """Every key that is queued gets reconciled, again and again until that goes well; no service holds up another.

    Nothing is reconciled once `elector` does not lead; None leads always.
    """

    def __init__(
        self,
        queue: WorkQueue[ServiceKey],
        reconciler: Reconciler,
        elector: LeaseElector | None,
        metrics: OperatorMetrics,
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._elector = elector
        self._metrics = metrics

    async def work(self) -> NoReturn:
        """Be one worker. Raises LeadershipLost."""
        while True:
            key = await self._queue.get()
            try:
                if self._elector is not None and not self._elector.leads():
                    # Stopped for a while (SIGSTOP, a debugger, a paused machine) this process wakes in the middle of
                    # its work, and somebody else may be at it by now.
                    raise LeadershipLost(f"the lease of {self._elector.identity} ran out")
                await self._reconcile(key)
            finally:
                self._queue.done(key)

    def stuck(self) -> str | None:
        """Why this process must be started again, or None: for a liveness probe, so never the API server's doing."""
        longest = self._queue.longest_in_hand()
        return f"a reconcile has not ended for {longest:.0f} s" if longest > 2 * RECONCILE_LIMIT else None

    async def _reconcile(self, key: ServiceKey) -> None:
        """Raises LeadershipLost."""
        loop = asyncio.get_running_loop()
        started, result = loop.time(), "success"
        context = {"service": str(key)}
        try:
            async with asyncio.timeout(RECONCILE_LIMIT):
                again = await self._reconciler.reconcile(key)
        except LeadershipLost:
            raise
        except Unavailable as error:
            result = "error"
            delay = self._queue.add_failed(key, at_least=error.retry_after or 0.0, at_most=OUTAGE_DELAY)
            logger.warning("again in %.1f s: %s", delay, error, extra=context)
        except (ClusterError, TimeoutError) as error:
            result = "error"
            delay = self._queue.add_failed(key, at_most=RACE_DELAY if isinstance(error, Conflict) else math.inf)
            logger.warning("again in %.1f s: %s", delay, str(error) or "it took too long", extra=context)
        except Exception:
            # A bug met by one service must not stop the others; it is told in full, and counted.
            result = "error"
            delay = self._queue.add_failed(key)
            logger.exception("again in %.1f s", delay, extra=context)
        else:
            self._queue.forget(key)
            if again is not None:
                result = "requeue_after"
                self._queue.add_after(key, max(again, SHORTEST_REQUEUE))
        self._metrics.reconciled(result, loop.time() - started)
