"""The table of `pagoda local` is the one that `kubectl get inferenceservices` prints.

`golden/kubectl-get.txt` is kubectl's own output for a Table of these cells.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pagoda_operator.api.crd import COLUMNS
from pagoda_operator.local.table import human_duration, table, values_at

GOLDEN = Path(__file__).parent / "golden" / "kubectl-get.txt"
NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)


def service(name: str, age: timedelta, **status) -> dict:
    created = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {"name": name, "creationTimestamp": created}, "status": status}


def ready(status: str, reason: str) -> list[dict]:
    planned = {"type": "Planned", "status": "True", "reason": "Planned"}
    return [planned, {"type": "Ready", "status": status, "reason": reason}]


def test_table_equals_kubectls():
    services = [
        service(
            "qwen",
            timedelta(minutes=3),
            conditions=ready("True", "Serving"),
            model="qwen2.5-7b-instruct",
            plan={"gpu": "1x H100-80GB-HBM3", "tensorParallel": 1},
            ready="2/2",
            cache={"state": "Ready"},
            queue={"waiting": 0},
            url="http://qwen.default/v1",
        ),
        service("a-service-that-has-just-been-made", timedelta()),
        service(
            "llama",
            timedelta(days=2, hours=3),
            conditions=ready("False", "ModelUnreadable"),
            model="llama",
            ready="0/1",
            cache={"state": "43%"},
            url="http://llama.default/v1",
        ),
    ]
    assert table(services, COLUMNS, NOW) == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 - 1, "7h59m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400 - 1, "7d23h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400 - 1, "729d"),
        (2 * 365 * 86400, "2y"),
        (2 * 365 * 86400 + 86400, "2y1d"),
        (8 * 365 * 86400, "8y"),
    ],
)
def test_age_is_worded_as_in_kubectl(seconds, text):
    """The table of TestHumanDuration in k8s.io/apimachinery/pkg/util/duration, and its edges."""
    assert human_duration(seconds) == text


def test_text_of_several_lines_is_cut_as_kubectl_cuts_it():
    rows = table([service("x", timedelta(), model="one\ntwo")], (("MODEL", "string", ".status.model"),), NOW)
    assert rows.splitlines()[1].split() == ["x", "one..."]


def test_path_in_another_notation_is_refused():
    with pytest.raises(ValueError, match=r"can't be read from '\[0\]'"):
        values_at({"a": [1]}, ".a[0]")


def test_every_column_of_the_crd_can_be_read():
    for _, _, path in COLUMNS:
        assert values_at({}, path) == []
