"""What a Prometheus that follows the chart's monitors knows of a service."""

from __future__ import annotations

from e2e.monitoring import Prometheus
from e2e.services import Services, service


def test_engines_and_operator_are_scraped(services: Services, prometheus: Prometheus) -> None:
    """Each replica is a series with its namespace and pod, as scalers' queries select it; a pod that went has none."""
    services.cluster.apply(service("tiny", services.namespace))
    services.wait_ready("tiny")
    (pod,) = services.pods("tiny")
    series = f'vllm:num_requests_running{{namespace="{services.namespace}"}}'
    (found,) = prometheus.eventually(series)
    assert (found.labels["pod"], found.value) == (pod["metadata"]["name"], 0)
    assert prometheus.query('pagoda_operator_services{container="operator"} >= 1')
    services.cluster.kubectl("scale", "infsvc", "tiny", "--replicas=0", "-n", services.namespace)
    services.cluster.eventually(lambda: not prometheus.query(series), "the series ended")
