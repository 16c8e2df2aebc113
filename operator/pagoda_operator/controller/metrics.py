"""The operator's own metrics, under the names that controller-runtime's and client-go's dashboards know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pagoda_operator.api.names import RUNNING_METRIC, SERVICE_METRIC_LABEL, WAITING_METRIC
from pagoda_operator.cluster.resources import Resource
from pagoda_operator.scaling.load import Load

CONTROLLER: Final = "inferenceservice"

LoadsNow = Callable[[], Iterable[tuple[str, Load]]]
"""Each service that scales by itself and whose load is known, as `NAMESPACE/NAME`."""


class OperatorMetrics:
    """One operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._reconciles = Counter(
            "controller_runtime_reconcile", "Reconciles, by how they ended", ("controller", "result"), registry=registry
        )
        self._seconds = Histogram(
            "controller_runtime_reconcile_time_seconds", "Length of a reconcile", ("controller",), registry=registry
        )
        self._errors = Counter(
            "controller_runtime_reconcile_errors", "Reconciles that failed", ("controller",), registry=registry
        )
        self._longest = Gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the oldest reconcile has been running",
            ("name",),
            registry=registry,
        )
        self._depth = Gauge("workqueue_depth", "Services that wait to be looked at", ("name",), registry=registry)
        self._calls = Counter(
            "rest_client_requests", "Calls of the API server", ("verb", "resource", "code"), registry=registry
        )
        self._call_seconds = Histogram(
            "rest_client_request_duration_seconds", "Length of a call of the API server", ("verb",), registry=registry
        )
        self._services = Gauge("pagoda_operator_services", "InferenceServices that are known", registry=registry)
        self._watch_age = Gauge(
            "pagoda_operator_watch_confirmed_age_seconds",
            "Time since a kind's watch was last found complete by a LIST",
            ("resource",),
            registry=registry,
        )
        self._watch_failures = Counter(
            "pagoda_operator_watch_failures", "How often the watch layer ended and was run anew", registry=registry
        )
        self._leader = Gauge(
            "leader_election_master_status", "1 while this is the leader", ("name",), registry=registry
        )
        self.leading(False)

    def reconciled(self, result: str, seconds: float) -> None:
        """A reconcile ended: `success`, `requeue_after` or `error`."""
        self._reconciles.labels(CONTROLLER, result).inc()
        self._seconds.labels(CONTROLLER).observe(seconds)
        if result == "error":
            self._errors.labels(CONTROLLER).inc()

    def called(self, verb: str, resource: Resource, status: int, seconds: float) -> None:
        """An API call was answered; a `cluster.kubernetes.OnCall`."""
        self._calls.labels(verb, str(resource), str(status) if status else "none").inc()
        self._call_seconds.labels(verb).observe(seconds)

    def watch_failed(self) -> None:
        """The watch layer ended by itself."""
        self._watch_failures.inc()

    def leading(self, leading: bool) -> None:
        """This operator became the leader, or is no longer."""
        self._leader.labels(CONTROLLER).set(int(leading))

    def follow(
        self, *, depth: Callable[[], float], longest: Callable[[], float], services: Callable[[], float]
    ) -> None:
        """Read these whenever metrics are asked for."""
        self._depth.labels(CONTROLLER).set_function(depth)
        self._longest.labels(CONTROLLER).set_function(longest)
        self._services.set_function(services)

    def follow_watch(self, resource: Resource, age: Callable[[], float]) -> None:
        """Read a watch's age whenever metrics are asked for."""
        self._watch_age.labels(str(resource)).set_function(age)

    def follow_loads(self, loads: LoadsNow) -> None:
        """Read the services' loads whenever metrics are asked for."""
        self._registry.register(_Loads(loads))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _Loads(Collector):
    """A series a service. One whose load nobody knows has none: a number that stood still would pass for a load."""

    def __init__(self, loads: LoadsNow) -> None:
        self._loads = loads

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        waiting, running = self._families()
        for service, load in self._loads():
            waiting.add_metric((service,), load.waiting)
            running.add_metric((service,), load.running)
        yield from (waiting, running)

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        labels = (SERVICE_METRIC_LABEL,)
        return (
            GaugeMetricFamily(
                WAITING_METRIC, "Requests that wait, or are held for a service without replicas", labels=labels
            ),
            GaugeMetricFamily(RUNNING_METRIC, "Requests that run", labels=labels),
        )
