"""`pagoda operator`: run the controller of a cluster until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import signal
import sys
import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from pagoda_engine.contract import ExitCode
from pagoda_operator.cluster.connection import NotConfigured, connect
from pagoda_operator.cluster.kubernetes import KubernetesCluster
from pagoda_operator.controller.health import Checks, serve_health
from pagoda_operator.controller.lease import LeadershipLost, LeaseElector
from pagoda_operator.controller.metrics import OperatorMetrics
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sweep import WatchSilent
from pagoda_operator.controller.watch import KopfSource
from pagoda_operator.core.settings import Settings
from pagoda_operator.scaling.activation import activation_route

logger = logging.getLogger("pagoda_operator")

LEASE_NAME: Final = "pagoda-operator"
POD_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class PortInUse(Exception):
    """A server of the operator can't listen; says which flag, and what is in the way."""


def main(argv: Sequence[str]) -> int:
    """Run `pagoda operator ARGV`. Exit codes: 0 after SIGTERM, 1 when it must be started again, 2 for wrong usage."""
    options = parser().parse_args(list(argv))
    try:
        settings = Settings.load(options.settings) if options.settings else Settings()
    except (OSError, ValueError) as error:
        return _complain(str(error), ExitCode.USAGE)
    _log(options.log_format, options.log_level)
    try:
        # TLS and sockets in C, which are much of what the operator does.
        code: int = uvloop.run(_run(options, settings))
    except (NotConfigured, LeadershipLost, WatchSilent) as error:
        return _complain(str(error), ExitCode.CRASHED)
    except PortInUse as error:
        return _complain(str(error), ExitCode.PORT_IN_USE)
    return code


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="pagoda operator",
        description="Run the operator of a cluster.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--namespace", action="append", default=[], help="serve this namespace only; may be repeated")
    parser.add_argument("--settings", type=Path, help="YAML or JSON file with the administrator's settings")
    parser.add_argument("--kubeconfig", help="file that says where the API server is; default: KUBECONFIG, or the pod")
    parser.add_argument("--health-host", default="0.0.0.0", help="address that the operator's servers listen on")
    parser.add_argument("--health-port", type=int, default=8080, help="port of the same; 0 is any free port")
    parser.add_argument("--scaler-port", type=int, help="port of KEDA's external-push triggers (gRPC); default: none")
    parser.add_argument(
        "--external-metrics-port", type=int, default=8443, help="port of external.metrics.k8s.io, if settings want it"
    )
    parser.add_argument(
        "--external-metrics-service",
        default="pagoda-external-metrics",
        help="Service in front of that port in the operator's namespace, and Secret for its certificates",
    )
    parser.add_argument("--external-metrics-owner", default="", help="ClusterRole that the APIService is to go with")
    parser.add_argument(
        "--leader-elect", action=argparse.BooleanOptionalAction, default=True, help="let one of several operators lead"
    )
    parser.add_argument("--lease-namespace", default=_own_namespace(), help="namespace of the leader's Lease")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="one line a record either way")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="log level")
    return parser


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    metrics = OperatorMetrics()
    connection = await connect(options.kubeconfig)
    cluster = KubernetesCluster(connection, on_call=metrics.called)
    elector = None
    if options.leader_elect:
        identity = f"{platform.node()}_{uuid.uuid4()}"
        elector = LeaseElector(cluster, options.lease_namespace, LEASE_NAME, identity)
    keeper = None
    if settings.external_metrics:
        from pagoda_operator.commands import external_metrics

        keeper = external_metrics.keeper(options, cluster, _own_namespace())
    controller = Controller(
        cluster,
        KopfSource(connection, options.namespace),
        settings,
        namespaces=options.namespace,
        elector=elector,
        metrics=metrics,
        external_metrics=keeper,
    )
    checks = Checks(ready=lambda: controller.ready, stuck=controller.stuck)
    running = asyncio.ensure_future(controller.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        async with AsyncExitStack() as servers:
            health = serve_health(
                options.health_host, options.health_port, checks, metrics, activation_route(controller.loads)
            )
            logger.info("health, metrics and activation on port %d", await _listen(servers, "--health-port", health))
            if options.scaler_port is not None:
                # gRPC takes 12 MiB: only who serves by it loads it.
                from pagoda_operator.scaling.external_push import serve_external_push

                scaler = serve_external_push(options.health_host, options.scaler_port, controller.loads)
                logger.info("KEDA's triggers on port %d", await _listen(servers, "--scaler-port", scaler))
            if keeper is not None:
                api = external_metrics.server(options, controller.loads, keeper.serving)
                logger.info("external metrics on port %d", await _listen(servers, "--external-metrics-port", api))
            await running
    except asyncio.CancelledError:
        logger.info("stopped")
    finally:
        running.cancel()
        await asyncio.wait([running])
        await cluster.close()
    return ExitCode.OK


async def _listen(servers: AsyncExitStack, flag: str, server: AbstractAsyncContextManager[int]) -> int:
    """Its port. Raises PortInUse."""
    try:
        return await servers.enter_async_context(server)
    except OSError as error:
        raise PortInUse(f"{flag}: {error}") from None


def _own_namespace() -> str:
    if namespace := os.environ.get("POD_NAMESPACE"):
        return namespace
    return POD_NAMESPACE_FILE.read_text().strip() if POD_NAMESPACE_FILE.exists() else "default"


def _log(form: str, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # It warns that it leaves signals alone, which is why it has a thread of its own.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


class _TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO default/qwen applied Deployment qwen`; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record), record.levelname, getattr(record, "service", ""), record.getMessage()]
        line = " ".join(word for word in words if word)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonLines(logging.Formatter):
    """One JSON object a line, with the same fields."""

    def format(self, record: logging.LogRecord) -> str:
        document = {"time": _time(record), "level": record.levelname, "logger": record.name}
        if service := getattr(record, "service", ""):
            document["service"] = service
        document["message"] = record.getMessage()
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _complain(problem: str, code: ExitCode) -> int:
    print(f"pagoda operator: error: {problem}", file=sys.stderr)
    return code
