"""Time as the Kubernetes API writes it."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp() -> str:
    """Now, in whole seconds of UTC: `2026-01-31T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
