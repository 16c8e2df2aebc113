"""The load of a service, and where the servers of this package read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

HOLD_SECONDS: Final = 30.0
"""How long the word of a gateway stands (see `Loads.activate`)."""


@dataclass(frozen=True, slots=True)
class Load:
    """Summed over the replicas: requests that wait for a place, requests that run.

    Requests that are held for a service without replicas (see `Loads.activate`) count as waiting.
    """

    waiting: int
    running: int

    @property
    def requests(self) -> int:
        """All of them: a service is idle when this is 0, so that a stream is never cut by scaling to zero."""
        return self.waiting + self.running


class Loads(Protocol):
    """The loads of all services, as last scraped. All on one event loop."""

    def of(self, namespace: str, name: str) -> Load | None:
        """The load of a service; None where nobody knows: there is no such service, its replicas don't answer, or this
        process has just begun and has not asked all of them.

        A service without replicas has a load: nothing runs, and what is held waits.
        """

    def pressing(self, namespace: str, name: str) -> Load | None:
        """The load as it speaks for more replicas: the same, less the waiting requests that loading ones will take.

        What a scaler is to divide by its target; whether a service is idle, `of` says.
        """

    async def other_than(self, namespace: str, name: str, seen: Load | None) -> Load | None:
        """The load, as soon as it is another one than `seen`."""

    def activate(self, namespace: str, name: str, requests: int) -> bool:
        """Tell that a gateway holds `requests` requests for a service; it counts for a while and is to be repeated
        until they are answered, or 0 told. Returns whether there is such a service."""
