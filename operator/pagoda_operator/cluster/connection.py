"""Where the API server is and who we are to it: in a pod by its ServiceAccount, elsewhere by a kubeconfig file.

The order is controller-runtime's: a file named on the command line, `KUBECONFIG`, the pod's ServiceAccount,
`~/.kube/config`. Tokens are asked for again with every call, since those of pods and of exec plugins expire.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.configuration import Configuration


class NotConfigured(Exception):
    """No usable way to an API server; the message says where was looked and what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What any HTTP client needs to speak to the API server. Paths are of PEM files; `token` goes after `Bearer`."""

    server: str
    ca_path: str | None
    verify: bool
    token: str | None
    certificate_path: str | None
    key_path: str | None
    proxy: str | None


class Connection:
    """The way to one API server. `configuration` is what the `kubernetes` package reads from files and plugins."""

    def __init__(self, configuration: Any, reload: Callable[[], Awaitable[object]]) -> None:
        self.configuration = configuration
        self._reload = reload

    async def renew(self) -> None:
        """Read files and run plugins again, after a 401."""
        await self._reload()

    async def authorization(self) -> str | None:
        """The value of the Authorization header for the next call, or None where certificates do it."""
        settings = await self.configuration.auth_settings()
        return settings["BearerToken"]["value"] if "BearerToken" in settings else None

    async def credentials(self) -> Credentials:
        """The same for clients other than the `kubernetes` package's."""
        configuration = self.configuration
        header = await self.authorization()
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            verify=configuration.verify_ssl,
            token=header.split(" ", 1)[1].strip() if header else None,
            certificate_path=configuration.cert_file,
            key_path=configuration.key_file,
            proxy=configuration.proxy,
        )

    def session(self, connections: int) -> aiohttp.ClientSession:
        """An HTTP client with the server's certificate, ours, and the proxy between them, if any."""
        settings = self.configuration
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert, cadata=settings.ca_cert_data)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, keyfile=settings.key_file)
        if not settings.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.disable_strict_ssl_verification:
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=context),
            proxy=settings.proxy or _proxy(settings.host),
        )


async def connect(kubeconfig: str | None = None) -> Connection:
    """Find the API server. Raises NotConfigured."""
    path = kubeconfig or os.environ.get("KUBECONFIG")
    configuration = Configuration()
    if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:

        async def load() -> None:
            kubernetes_config.load_incluster_config(client_configuration=configuration)

    else:

        async def load() -> None:
            await kubernetes_config.load_kube_config(
                config_file=path, client_configuration=configuration, persist_config=False
            )

    try:
        await load()
    except kubernetes_config.ConfigException as error:
        where = path or ("the pod's ServiceAccount" if "KUBERNETES_SERVICE_HOST" in os.environ else "~/.kube/config")
        raise NotConfigured(
            f"no API server found by {where}: {error}; name a file by --kubeconfig or KUBECONFIG"
        ) from error
    return Connection(configuration, load)


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for a server. Asked once: a client that trusts the environment looks there,
    and into ~/.netrc, in a thread, before each call."""
    parts = urlsplit(server)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
