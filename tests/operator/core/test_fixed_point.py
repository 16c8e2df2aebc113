"""A plan that was carried out leaves nothing to do: whatever the spec and the world, the second plan is empty."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagoda_operator.core.settings import Settings

SPECS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3),
        "accelerator": st.sampled_from(["auto", "gpu", "cpu"]),
        "engine": st.fixed_dictionaries(
            {},
            optional={
                "maxModelLen": st.sampled_from([128, 2048, 8192, 100_000]),
                "maxNumSeqs": st.sampled_from([1, 16]),
                "dtype": st.sampled_from(["auto", "float32"]),
                "env": st.just([{"name": "A", "value": "1"}]),
            },
        ),
        "parallelism": st.fixed_dictionaries({"tensor": st.sampled_from([1, 2, 3, 9])}),
        "resources": st.fixed_dictionaries({"limits": st.just({"memory": "4096Mi", "cpu": "1.5"})}),
        "nodeSelector": st.just({"zone": "a"}),
        "cache": st.fixed_dictionaries(
            {},
            optional={
                "size": st.sampled_from(["1Gi", "1024Mi", "30Gi"]),
                "accessMode": st.sampled_from(["ReadWriteOnce", "ReadWriteMany"]),
                "retain": st.booleans(),
                "storageClassName": st.sampled_from(["fast", "slow"]),
            },
        ),
        "autoscaling": st.fixed_dictionaries(
            {"maxReplicas": st.integers(1, 3)},
            optional={
                "provider": st.sampled_from(["auto", "keda", "hpa"]),
                "runningRequests": st.sampled_from([1, 20, 100_000]),
                "scaleUp": st.just(
                    {"tolerance": "0.05", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
                ),
                "scaleDown": st.fixed_dictionaries({"stabilizationWindowSeconds": st.sampled_from([0, 3600])}),
            },
        ),
        "terminationGracePeriodSeconds": st.sampled_from([5, 90]),
    },
)
EDITS = st.lists(SPECS, min_size=1, max_size=3)
SCALERS = st.sampled_from([frozenset(), frozenset({"ScaledObject"})])


@pytest.mark.parametrize("gpus", [False, True])
@given(edits=EDITS, served=SCALERS, ready=st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_planning_again_writes_nothing(world, gpu_node, gpus, edits, served, ready):
    world = copy.deepcopy(world)
    world.settings = Settings(prometheus_address="http://prometheus:9090")
    world.given(served=served, nodes=(gpu_node(),) if gpus else ())
    model = world.service["spec"]["model"]
    for spec in edits:
        world.service["spec"] = {"model": model}
        world.edit(**spec)
        world.step()
        if ready and ("Deployment", "smollm2") in world.facts.children:
            world.deployed(ready=world.child("Deployment")["spec"]["replicas"])
        world.step()
        again = world.plan()
        assert (again.apply, again.delete) == ((), ())
        assert again.status == world.service["status"]


@given(edits=EDITS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_planning_changes_neither_service_nor_facts(world, edits):
    """They are the store's own objects."""
    world = copy.deepcopy(world)
    for spec in edits:
        world.edit(**spec)
        service, children = copy.deepcopy(world.service), copy.deepcopy(dict(world.facts.children))
        world.plan()
        assert world.service == service
        assert dict(world.facts.children) == children
        world.step()
