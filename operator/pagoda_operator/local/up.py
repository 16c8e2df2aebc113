"""`pagoda local up`: the operator's own loop over an in-memory cluster whose one node is this machine."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TextIO

from pagoda_engine.contract import ENGINE_PORT, ExitCode
from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sources import StreamSource
from pagoda_operator.core.settings import Settings
from pagoda_operator.local.addresses import FIRST, free_port
from pagoda_operator.local.deployments import Deployments
from pagoda_operator.local.document import DocumentError, read_document
from pagoda_operator.local.endpoints import Endpoints
from pagoda_operator.local.node import LocalNode
from pagoda_operator.local.service_proxy import TcpProxy
from pagoda_operator.local.session import Session, UpError, UpOptions

HOST = "127.0.0.1"
NODE_NAME = "local"
MANAGER = "pagoda-local"
DRAIN_DELAY = 0.5
"""Seconds: the proxy is in this process and forgets a pod at once, so there is little to wait for."""


async def up(options: UpOptions, out: TextIO) -> int:
    """Serve the file's InferenceService; returns the exit code. Nothing runs any more when it returns or raises.

    Raises UpError. What a user asked for goes to `out`, what happens meanwhile to stderr.
    """
    try:
        document = read_document(options.file)
    except DocumentError as error:
        raise UpError(str(error), ExitCode.USAGE) from error
    options.cache.mkdir(parents=True, exist_ok=True)
    cluster, engine_port = MemoryCluster(), free_port(str(FIRST), ENGINE_PORT)
    metadata = document.service["metadata"]
    endpoints = Endpoints(cluster, namespace=metadata["namespace"], service=metadata["name"], port=engine_port)
    with _stop_signals() as stop, tempfile.TemporaryDirectory(prefix="pagoda-") as folder:
        async with _proxy(options.port, endpoints) as proxy:
            settings = Settings(
                local=True,
                bind_host="$(POD_IP)",
                engine_port=engine_port,
                service_url=f"http://{HOST}:{proxy.address[1]}/v1",
                drain_delay=DRAIN_DELAY,
            )
            node = LocalNode(
                cluster,
                name=NODE_NAME,
                folder=Path(folder),
                models=options.cache.resolve(),
                environment=pod_environment(),
            )
            session = Session(cluster.acting_as(MANAGER), document, options, out, stop)
            return await _beside(
                session.run(),
                Controller(cluster, StreamSource(cluster), settings).run(),
                Deployments(cluster, node_name=NODE_NAME).run(),
                node.run(),
                endpoints.run(),
            )


def pod_environment() -> dict[str, str]:
    """What pods inherit from the user: everything (proxies, indexes, tokens), and the `pagoda` of this interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/pagoda/models`, or the same under ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "pagoda" / "models"


@asynccontextmanager
async def _proxy(port: int, endpoints: Endpoints) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(HOST, port, endpoints.addresses)
    try:
        await proxy.start()
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is in use" if error.errno == errno.EADDRINUSE else "may not be used by you"
        raise UpError(f"port {port} {why}; choose another with --port", ExitCode.PORT_IN_USE) from error
    try:
        yield proxy
    finally:
        await proxy.stop()


@contextmanager
def _stop_signals() -> Iterator[asyncio.Queue[int]]:
    """Each SIGINT and SIGTERM as an item of the queue, instead of an exception anywhere."""
    loop, stop = asyncio.get_running_loop(), asyncio.Queue[int]()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.put_nowait, int(number))
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _beside(main: Coroutine[Any, Any, int], *others: Coroutine[Any, Any, Any]) -> int:
    """The result of `main`, with the others running beside it. Where one of them breaks, all ends with its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(other) for other in others]
            result = await group.create_task(main)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return result
