"""Whose a cluster's external metrics are: ours, nobody's, or somebody else's, who keeps them."""

import pytest

from pagoda_operator.core.api_service import Backend, api_service, foreign_holder, unavailable

US = Backend("pagoda-system", "pagoda-external-metrics")
ROLE = {"metadata": {"name": "pagoda-system-pagoda-external-metrics", "uid": "u1"}}
OURS = api_service(US, b"PEM", ROLE)


def changed(**spec):
    return {**OURS, "spec": {**OURS["spec"], **spec}}


def test_it_sends_the_group_to_our_service_and_nowhere_else():
    assert OURS["metadata"]["name"] == "v1beta1.external.metrics.k8s.io"
    assert OURS["spec"]["service"] == {"namespace": "pagoda-system", "name": "pagoda-external-metrics", "port": 443}
    assert OURS["spec"]["caBundle"] == "UEVN"
    assert "insecureSkipTLSVerify" not in OURS["spec"]


def test_it_goes_with_the_chart():
    """Helm does not know of it, so it is garbage once the chart's ClusterRole is gone; without one it stays."""
    (owner,) = OURS["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "name": "pagoda-system-pagoda-external-metrics",
        "uid": "u1",
    }
    assert "ownerReferences" not in api_service(US, b"PEM", None)["metadata"]


@pytest.mark.parametrize(
    ("live", "holder"),
    [
        (OURS, ""),
        (changed(caBundle="b3RoZXI=", groupPriorityMinimum=7), ""),
        (changed(service={"namespace": "keda", "name": "keda-metrics", "port": 443}), "Service keda/keda-metrics"),
        (changed(service=None), "a CustomResourceDefinition of that group"),
        (
            {**OURS, "metadata": {"name": OURS["metadata"]["name"]}},
            "Service pagoda-system/pagoda-external-metrics, by an APIService that this operator did not make",
        ),
    ],
    ids=["ours", "ours, edited", "taken over from us", "a CRD's", "made by hand"],
)
def test_what_is_not_ours_in_every_way_is_somebody_elses(live, holder):
    """Also where it bears our label but points elsewhere: somebody took it over, and would do so again."""
    assert foreign_holder(live, US) == holder


def test_another_release_of_this_operator_is_somebody_else_too():
    assert foreign_holder(OURS, Backend("other", "pagoda-external-metrics")) == (
        "Service pagoda-system/pagoda-external-metrics"
    )


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([], ""),
        ([{"type": "Available", "status": "True", "reason": "Passed", "message": "all checks passed"}], ""),
        (
            [{"type": "Available", "status": "False", "reason": "MissingEndpoints", "message": "none"}],
            "MissingEndpoints: none",
        ),
    ],
)
def test_the_api_servers_own_words_say_why_it_does_not_reach_us(conditions, words):
    assert unavailable({"status": {"conditions": conditions}}) == words
