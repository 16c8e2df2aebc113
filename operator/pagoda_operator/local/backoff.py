"""How long a container that ended waits before it is started again: the kubelet's crash loop back-off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackOff:
    """Seconds: none before the first restart, then `first`, doubling up to `limit`; forgotten after `reset` of running.

    Numbers of kubelet's `MaxContainerBackOff` and `containerBackOffPeriod` (pkg/kubelet/kubelet.go).
    """

    first: float = 10.0
    limit: float = 300.0
    reset: float = 600.0

    def delay(self, restarts: int) -> float:
        """The wait before restart number `restarts` (0 is the first) of a row of crashes."""
        if restarts == 0:
            return 0.0
        return float(min(self.first * 2 ** min(restarts - 1, 32), self.limit))
