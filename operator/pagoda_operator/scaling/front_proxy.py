"""Who may speak for the API server: the front proxy of Kubernetes' aggregation layer.

An API server that passes a request on shows a client certificate of its own (`--proxy-client-cert-file`), and publishes
which authority signed it in a ConfigMap that every extension server may read. It has asked its own authorisers before
it passes a request on, so a request that bears this certificate was allowed by the cluster's RBAC; no other is taken.
https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pagoda_operator.api.names import Object

NAMESPACE: Final = "kube-system"
CONFIG_MAP: Final = "extension-apiserver-authentication"
AUTHORITY_KEY: Final = "requestheader-client-ca-file"
NAMES_KEY: Final = "requestheader-allowed-names"


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """`authorities` (PEM) signed its certificate; `names` are the common names that it may have, empty: any."""

    authorities: str
    names: frozenset[str]

    @classmethod
    def from_config_map(cls, config_map: Object) -> FrontProxy:
        """Read what the API server published. Raises ValueError where its aggregation layer is off."""
        data = config_map.get("data") or {}
        if not data.get(AUTHORITY_KEY):
            raise ValueError(
                f"ConfigMap {NAMESPACE}/{CONFIG_MAP} has no {AUTHORITY_KEY}: the API server's aggregation layer is "
                f"off; start it with --{AUTHORITY_KEY} and --proxy-client-cert-file"
            )
        names = json.loads(data.get(NAMES_KEY) or "[]")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"ConfigMap {NAMESPACE}/{CONFIG_MAP}: {NAMES_KEY} is {data[NAMES_KEY]}, no list of names")
        return cls(data[AUTHORITY_KEY], frozenset(names))

    def is_shown_by(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a peer's verified certificate (`SSLSocket.getpeercert()`) is the front proxy's."""
        if not certificate:
            return False
        names = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
        return not self.names or bool(names & self.names)
