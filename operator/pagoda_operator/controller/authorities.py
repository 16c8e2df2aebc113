"""The operator's certificate authorities, in a Secret that the chart makes empty and the operator fills.

Every instance reads it, and whichever comes first renews it; an optimistic lock decides between two.
"""

from __future__ import annotations

import base64
import binascii
import logging
from datetime import datetime

from pagoda_operator.cluster.errors import Conflict
from pagoda_operator.cluster.interface import Cluster
from pagoda_operator.cluster.resources import SECRET
from pagoda_operator.scaling.certificates import Authorities

logger = logging.getLogger(__name__)

ATTEMPTS = 3


class AuthorityStore:
    """The Secret `name` in `namespace`."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name

    async def current(self, now: datetime) -> Authorities:
        """The authorities to trust and to sign with, renewed where it is time. Raises ClusterError."""
        for attempt in range(ATTEMPTS):
            secret = await self._cluster.get(SECRET, self._namespace, self._name)
            found = self._read(secret.get("data") or {})
            fresh = found.renewed(now)
            if fresh is found:
                return found
            data = {key: base64.b64encode(value).decode() for key, value in fresh.to_data().items()}
            try:
                await self._cluster.replace(SECRET, {**secret, "data": data})
            except Conflict:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue  # another instance was first: what it made is as good
            logger.info("made a certificate authority in Secret %s/%s", self._namespace, self._name)
            return fresh
        raise AssertionError("the last attempt returns or raises")

    def _read(self, data: dict[str, str]) -> Authorities:
        """What the Secret holds; none where that can't be used, since it has no other reader and can be made anew."""
        try:
            return Authorities.from_data({key: base64.b64decode(value, validate=True) for key, value in data.items()})
        except (ValueError, binascii.Error) as error:
            logger.warning("Secret %s/%s is made anew: %s", self._namespace, self._name, error)
            return Authorities()
