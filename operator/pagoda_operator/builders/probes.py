"""Probes of the engine container, on the engine's own endpoints."""

from __future__ import annotations

from typing import Final

from pagoda_engine.contract import ENGINE_PORT_NAME, HEALTH_PATH, READY_PATH
from pagoda_operator.api.names import Object

LOAD_SECONDS: Final = 2 * 3600
"""Longest load that is not called a failure; an engine that can't load ends by itself, with an exit code."""
STARTUP_PERIOD: Final = 2
"""Also how late a loaded engine is noticed, at most."""

STUCK_GRACE: Final = 30
"""Seconds: an engine that makes no progress has no streams to end, and its restart must not wait for them."""


def probes(grace_seconds: int) -> Object:
    """startupProbe, readinessProbe and livenessProbe of a pod that may take so long to end."""
    return {
        "startupProbe": _get(READY_PATH, period=STARTUP_PERIOD, failures=LOAD_SECONDS // STARTUP_PERIOD),
        "readinessProbe": _get(READY_PATH, period=5, failures=2),
        "livenessProbe": {
            **_get(HEALTH_PATH, period=10, failures=6),
            "terminationGracePeriodSeconds": min(STUCK_GRACE, grace_seconds),
        },
    }


def _get(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": ENGINE_PORT_NAME},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }
