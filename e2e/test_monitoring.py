"""What a Prometheus that follows the chart's monitors knows of a service."""

from __future__ import annotations

import yaml
from e2e.monitoring import Prometheus
from e2e.release import CHART
from e2e.services import Services, service

from pagoda_engine.contract import Metric

RULES = CHART / "files" / "prometheus-adapter.yaml"


def test_engines_and_operator_are_scraped(services: Services, prometheus: Prometheus) -> None:
    """Each replica is a series with its namespace and pod, as scalers' queries select it; a pod that went has none.

    The rule that the chart ships for prometheus-adapter finds the series, and gives one value a pod.
    """
    services.cluster.apply(service("tiny", services.namespace))
    services.wait_ready("tiny")
    (pod,) = services.pods("tiny")
    series = f'vllm:num_requests_running{{namespace="{services.namespace}"}}'
    (found,) = prometheus.eventually(series)
    assert (found.labels["pod"], found.value) == (pod["metadata"]["name"], 0)
    (rule,) = yaml.safe_load(RULES.read_text())["rules"]["custom"]
    pods = [pod["metadata"]["name"], "another"]
    for metric in (Metric.WAITING, Metric.RUNNING):
        (value,) = prometheus.eventually(adapter_query(rule["metricsQuery"], metric, services.namespace, pods))
        assert (value.labels, value.value) == ({"pod": pods[0]}, 0), "the HPA knows values by their pods"
    discovered = {one.labels["__name__"] for one in prometheus.eventually(rule["seriesQuery"])}
    assert discovered == {Metric.WAITING, Metric.RUNNING}
    prometheus.eventually('pagoda_operator_services{container="operator"} >= 1')
    services.cluster.kubectl("scale", "infsvc", "tiny", "--replicas=0", "-n", services.namespace)
    services.cluster.eventually(lambda: not prometheus.query(series), "the series ended")


def adapter_query(template: str, series: str, namespace: str, pods: list[str]) -> str:
    """What prometheus-adapter makes of a rule for some pods (pkg/naming/metrics_query.go)."""
    matchers = f'namespace="{namespace}",pod=~"{"|".join(pods)}"'
    for name, value in (("Series", series), ("LabelMatchers", matchers), ("GroupBy", "pod")):
        template = template.replace(f"<<.{name}>>", value)
    return template
