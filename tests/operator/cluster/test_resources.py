"""Paths under which an API server has things."""

import pytest

from pagoda_operator.cluster import resources


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (resources.POD.path(), "/api/v1/pods"),
        (resources.POD.path("a"), "/api/v1/namespaces/a/pods"),
        (resources.POD.path("a", "b"), "/api/v1/namespaces/a/pods/b"),
        (resources.NODE.path(None, "n"), "/api/v1/nodes/n"),
        (resources.DEPLOYMENT.path("a", "b"), "/apis/apps/v1/namespaces/a/deployments/b"),
        (
            resources.INFERENCE_SERVICE.path("a", "b", "status"),
            "/apis/pagoda.dev/v1alpha1/namespaces/a/inferenceservices/b/status",
        ),
        (resources.POD.path("a", "b/../c"), "/api/v1/namespaces/a/pods/b%2F..%2Fc"),
    ],
)
def test_a_path_names_one_thing(path, expected):
    assert path == expected


def test_every_kind_is_found_by_its_objects_and_by_its_name():
    for resource in resources.ALL:
        assert resources.resource_of({"apiVersion": resource.api_version, "kind": resource.kind}) == resource
        assert resources.resource_of_kind(resource.kind) == resource


def test_an_unknown_kind_is_told():
    with pytest.raises(ValueError, match="'v1', kind 'Gadget'"):
        resources.resource_of({"apiVersion": "v1", "kind": "Gadget"})
    with pytest.raises(ValueError, match="'Gadget'"):
        resources.resource_of_kind("Gadget")
