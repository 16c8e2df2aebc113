"""What a pod answers is read as what it is, whatever image it runs."""

import pytest

from pagoda_engine.contract import Metric
from pagoda_operator.controller.answers import document, gauge


def test_a_gauge_is_summed_over_its_labels_and_no_other_metric_is_taken_for_it():
    text = f"""# HELP {Metric.WAITING} waiting
# TYPE {Metric.WAITING} gauge
{Metric.WAITING}{{engine="0",model_name="a b}}"}} 3.0
{Metric.WAITING}{{engine="1",model_name="a b}}"}} 4.0 1700000000000
{Metric.WAITING}_by_reason{{reason="x"}} 100.0
{Metric.RUNNING} 2.0
"""
    assert gauge(text, Metric.WAITING) == 7
    assert gauge(text, Metric.RUNNING) == 2
    assert gauge(text, "vllm:none") is None
    assert gauge(f"{Metric.RUNNING} NaN\n{Metric.RUNNING} +Inf\n{Metric.RUNNING}\n", Metric.RUNNING) is None
    with pytest.raises(ValueError, match="many"):
        gauge(f"{Metric.RUNNING} many", Metric.RUNNING)
    with pytest.raises(ValueError, match="is inf"):
        gauge(f"{Metric.RUNNING} 1e308\n" * 2, Metric.RUNNING)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"stage": "dancing"}',
        b'{"stage": []}',
        b'{"stage": "ready", "percent": "43"}',
        b'{"stage": "ready", "percent": NaN}',
        b'{"stage": "ready", "eta_seconds": 1e999}',
        b'{"stage": "ready", "bytes_done": ' + b"9" * 400 + b"}",
        b"[" * 10_000,
        b'{"stage": "ready", "message": "' + b"x" * 20_000 + b'"}',
    ],
)
def test_what_is_no_progress_document_is_refused(body):
    """A pod may run any image; whatever it answers, the operator goes on."""
    with pytest.raises((ValueError, RecursionError)):
        document(body)
