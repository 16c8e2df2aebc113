"""The queries that KEDA is given, evaluated by Prometheus itself (`promtool test rules`) over series made for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from pagoda_engine.contract import Metric
from pagoda_operator.builders.scaledobject import load_query

SERIES: Final = {
    # The replicas of default/qwen: there are two, then their series end.
    'vllm:num_requests_waiting{namespace="default",pod="qwen-5d8f7c9b4-x2k4l"}': "3x4 stale",
    'vllm:num_requests_waiting{namespace="default",pod="qwen-5d8f7c9b4-zzzzz"}': "4x4 stale",
    # Others that its scaler must not count.
    'vllm:num_requests_waiting{namespace="other",pod="qwen-5d8f7c9b4-x2k4l"}': "50x9",
    'vllm:num_requests_waiting{namespace="default",pod="qwen-chat-5d8f7c9b4-x2k4l"}': "60x9",
    'vllm:num_requests_waiting{namespace="default",pod="quiet-5d8f7c9b4-x2k4l"}': "0x9",
    # Two operators tell of services: one has just heard, the other a little before.
    'pagoda_service_requests_waiting{inferenceservice="default/qwen",pod="pagoda-1"}': "6x4 9x1 stale",
    'pagoda_service_requests_waiting{inferenceservice="default/qwen",pod="pagoda-2"}': "5x4 8x1 stale",
    'pagoda_service_requests_waiting{inferenceservice="default/asleep",pod="pagoda-1"}': "0x4 2x4",
    'pagoda_service_requests_waiting{inferenceservice="default/quiet",pod="pagoda-1"}': "5x9",
}
"""Samples a minute apart, in promtool's notation: `3x4` is 3, and 3 four times more."""

CASES: Final = {
    "replicas are summed, and no others": ("qwen", 0, 7),
    "where the replicas' series ended, the operator's word counts": ("qwen", 5, 9),
    "where nobody tells, there is no value, and KEDA falls back": ("qwen", 8, None),
    "without replicas it is 0": ("asleep", 0, 0),
    "without replicas it is what a gateway holds": ("asleep", 6, 2),
    "the operator may know more than was scraped of the replicas": ("quiet", 0, 5),
    "a service that nobody has heard of has no value": ("unknown", 0, None),
}


@pytest.mark.parametrize(("service", "minute", "value"), CASES.values(), ids=CASES)
def test_the_waiting_requests_of_a_service(tmp_path: Path, service: str, minute: int, value: int | None) -> None:
    """One number, or none: an answer of several would be an error to KEDA, and 0 for silence would remove replicas."""
    expected = {
        "expr": load_query("default", service, Metric.WAITING),
        "eval_time": f"{minute}m",
        "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
    }
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [expected]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
