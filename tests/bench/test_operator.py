"""What the operator's benchmark reckons with, apart from the clusters that it runs."""

import json
import math

from bench.operator import audit, documents, fake_pods
from bench.operator.bare import UID
from bench.operator.results import Row, table
from bench.operator.services import service
from pagoda_engine.contract import Metric, Progress
from pagoda_operator.controller.answers import gauge


def call(at, name="a-models", verb="patch", resource="persistentvolumeclaims"):
    return audit.Call(verb, resource, ("team", name), 200, at)


def test_an_edit_lasts_until_the_next_write_of_its_own_claim():
    found = [call(1), call(2.5), call(2.7, "b-models"), call(2.8, verb="get"), call(4)]
    edits = [(("team", "a"), 2.0), (("team", "a"), 3.0), (("team", "b"), 2.72), (("team", "c"), 1.0)]
    assert audit.delays(edits, found) == [0.5, 1.0, 0.0, math.inf]


def test_a_percentile_is_a_value_that_was_seen():
    assert audit.percentile([float(number) for number in range(100)], 0.95) == 95
    assert audit.percentile([3.0], 0.95) == 3.0


def test_only_the_users_answered_calls_are_read(tmp_path):
    def line(user, name):
        return {
            "user": {"username": user},
            "verb": "patch",
            "objectRef": {"resource": "inferenceservices", "subresource": "status", "namespace": "n", "name": name},
            "responseStatus": {"code": 200},
            "stageTimestamp": "2026-01-31T12:00:00.500000Z",
            "annotations": {"of": "operator"},
        }

    log = tmp_path / "audit.jsonl"
    lines = [json.dumps(line(user, name)) for user, name in (("operator", "a"), ("admin", "b"))]
    log.write_text("\n".join(lines) + '\n{"user": {"username": "operator"}, "verb": "pat')
    (found,) = audit.calls(log, "operator")
    assert (str(found), found.key, found.at % 60) == ("patch inferenceservices/status 200", ("n", "a"), 0.5)


def test_the_bare_client_writes_what_the_operator_would():
    """Every child, owned by the service, then that there is a plan, then that a replica answers."""
    document = documents.of(service("svc", 3))
    assert document["key"] == ["team-3", "svc-3"]
    kinds = [child["kind"] for _, child in document["children"]]
    assert kinds == ["ServiceAccount", "PersistentVolumeClaim", "Service", "PodDisruptionBudget", "Deployment"]
    assert all(child["metadata"]["ownerReferences"][0]["uid"] == UID for _, child in document["children"])
    truths = []
    for name in ("planned", "ready"):
        path, told = document[name]
        assert path.endswith("/namespaces/team-3/inferenceservices/svc-3/status")
        truths.append({c["type"]: c["status"] for c in told["status"]["conditions"]})
    assert [(truth["Planned"], truth["Ready"]) for truth in truths] == [("True", "False"), ("True", "True")]


def test_fake_pods_answer_what_the_operator_reads():
    page = fake_pods.metrics()
    assert (gauge(page, Metric.WAITING), gauge(page, Metric.RUNNING)) == (0, fake_pods.RUNNING)
    assert len(page) > 10_000, "as long as a real engine's"
    assert str(Progress.from_json(fake_pods.READY.partition(b"\r\n\r\n")[2])) == "ready"


def test_the_table_has_a_line_a_size_and_one_for_what_is_to_be_reached():
    row = Row(10, 50, 8.0, 10.0, 5.0, 7.5, 7.0, 8.0, 99.6, 0.04, 1.5, 0, 0.25, {})
    lines = table([row, row]).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert "1.25" in lines[2]
    assert "<= 1.3" in lines[-1]
