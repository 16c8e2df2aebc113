"""Pods are replaced when something else is asked for, and for no other reason: not for an upgrade of the operator, not
for a setting of the administrator's."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from pagoda_engine.contract import ModelFacts
from pagoda_operator.api.names import ASKED_ANNOTATION, TEMPLATE_ANNOTATION, UPGRADE_ANNOTATION
from pagoda_operator.core.settings import Settings
from pagoda_operator.core.template import differences, digest
from pagoda_operator.planner.nodes import Node

KEPT = Path(__file__).parent / "kept"
"""Deployments as released operators left them in clusters. A file is added with a release and never written again."""

PROXY = {"name": "HTTPS_PROXY", "value": "http://user:password@proxy:3128"}
UPGRADES = [
    {"engine_image": "pagoda-engine:9.9.9"},
    {"engine_env": (PROXY,)},
    {"drain_delay": 20.0, "shutdown_timeout": 120.0},
    {"run_as_user": 2000},
    {"engine_port": 9000},
]


def template(world):
    return world.child("Deployment")["spec"]["template"]


def upgraded(world, **changes):
    world.settings = dataclasses.replace(world.settings, **changes)
    return world


@pytest.mark.parametrize("changes", UPGRADES)
def test_an_upgrade_replaces_no_pod_and_is_told_once(world, changes):
    before = copy.deepcopy(template(world.run()))
    result = upgraded(world, **changes).step()
    assert result.apply == ()
    assert template(world) == before
    assert world.reason("UpToDate") == ("False", "UpgradeAvailable")
    assert world.reason() == ("True", "Serving")
    again = world.plan()
    assert (again.apply, again.status) == ((), world.service["status"])


@pytest.mark.parametrize("changes", UPGRADES)
def test_who_asks_gets_the_newest_template(world, changes):
    """The annotation's value is anything; another value is another wish, the same value is none."""
    upgraded(world.run(), **changes).step()
    world.service["metadata"]["annotations"] = {UPGRADE_ANNOTATION: "2026-01"}
    newest = copy.deepcopy(world.step().apply[0]["spec"]["template"])
    world.deployed(ready=1).step()
    assert world.reason("UpToDate") == ("True", "UpToDate")
    assert world.plan().apply == ()
    upgraded(world, engine_image="pagoda-engine:10").step()
    assert template(world) == newest
    world.service["metadata"]["annotations"] = {UPGRADE_ANNOTATION: "2026-02"}
    world.step()
    assert template(world)["spec"]["containers"][0]["image"] == "pagoda-engine:10"


def test_the_message_names_what_differs_and_how_to_ask_but_tells_no_secrets(world):
    upgraded(world.run(), engine_image="pagoda-engine:9.9.9", engine_env=(PROXY,)).step()
    message = world.condition("UpToDate")["message"]
    assert "spec.containers.engine.image (pagoda-engine:0.1.0 -> pagoda-engine:9.9.9)" in message
    assert "spec.containers.engine.env.HTTPS_PROXY" in message
    assert "password" not in message
    assert "kubectl annotate infsvc smollm2 pagoda.dev/upgrade=" in message


def test_an_upgrade_changes_nothing_about_the_rest(world):
    """Replicas, the Service, the budget and the scaler are always as the newest operator makes them."""
    upgraded(world.run(), engine_image="pagoda-engine:9.9.9").step()
    before = copy.deepcopy(template(world))
    result = world.edit(replicas=3, autoscaling={"maxReplicas": 4}, cache={"retain": True}).step()
    assert {child["kind"] for child in result.apply} == {
        "Deployment",
        "PersistentVolumeClaim",
        "HorizontalPodAutoscaler",
    }
    assert world.child("Deployment")["spec"]["replicas"] == 3
    assert template(world) == before


@pytest.mark.parametrize(
    "edit",
    [
        {"engine": {"maxNumSeqs": 7}},
        {"resources": {"limits": {"memory": "9Gi"}}},
        {"nodeSelector": {"zone": "b"}},
        {"terminationGracePeriodSeconds": 99},
        {"cache": {"accessMode": "ReadWriteMany"}},
        {"model": {"uri": "hf://another/model"}},
    ],
)
def test_an_edit_that_shapes_pods_takes_the_upgrade_along(world, edit):
    upgraded(world.run(), engine_image="pagoda-engine:9.9.9").step()
    world.edit(**edit).step()
    assert template(world)["spec"]["containers"][0]["image"] == "pagoda-engine:9.9.9"


def test_other_hardware_is_another_template(world, gpu_node):
    """A service on `auto` moves to GPUs when the cluster gets some."""
    world.run().given(nodes=(gpu_node(),)).step()
    assert template(world)["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}


def test_a_server_that_stores_the_template_otherwise_is_not_a_roll_out(world):
    """A policy that changes images, an empty value that is dropped: the pods were made from what was asked for."""
    world.run()
    template(world)["spec"]["containers"][0]["image"] = "mirror.example/pagoda-engine:1"
    assert world.plan().apply != ()
    world.deployed(ready=1).given(now=world.facts.now)
    world.service = {**world.service, "status": world.plan().status}
    assert world.reason() == ("True", "Serving")
    assert world.reason("WorkloadReady") == ("True", "AllReplicasReady")


@pytest.mark.parametrize("edit", [{"engine": {"maxNumSeqs": 8}}, {"nodeSelector": None}])
def test_a_template_is_unseen_until_the_deployment_s_controller_has_seen_its_generation(world, edit):
    """Other changes before and after it, such as replicas, make generations of their own; an edit that takes something
    away is one too."""
    world.edit(nodeSelector={"pool": "a"}, replicas=2).run(replicas=2)
    world.edit(replicas=3).step()
    assert world.reason() == ("True", "Serving")
    world.edit(**edit).step()
    assert world.reason() == ("False", "RollingOut")
    seen = world.child("Deployment")["metadata"]["generation"]
    world.edit(replicas=1).step()
    assert world.reason() == ("False", "RollingOut")
    world.child("Deployment")["status"]["observedGeneration"] = seen
    world.child("Deployment")["status"]["updatedReplicas"] = 2
    world.step()
    assert world.reason() == ("True", "Serving")


def test_drift_goes_back_to_the_kept_template(world):
    """`kubectl set image` is undone, and not by an upgrade."""
    before = copy.deepcopy(template(world.run()))
    upgraded(world, engine_image="pagoda-engine:9.9.9").step()
    template(world)["spec"]["containers"][0]["image"] = "mine:1"
    (deployment,) = world.step().apply
    assert deployment["spec"]["template"] == before


@pytest.mark.parametrize(
    "annotations", [{TEMPLATE_ANNOTATION: "{"}, {TEMPLATE_ANNOTATION: "[]"}, {TEMPLATE_ANNOTATION: None}]
)
def test_a_template_that_can_t_be_read_is_made_anew(world, annotations):
    world.run()
    found = world.child("Deployment")["metadata"]["annotations"]
    found.update(annotations)
    if found[TEMPLATE_ANNOTATION] is None:
        del found[TEMPLATE_ANNOTATION]
    (deployment,) = upgraded(world, engine_image="pagoda-engine:9.9.9").step().apply
    kept = json.loads(deployment["metadata"]["annotations"][TEMPLATE_ANNOTATION])
    assert kept == deployment["spec"]["template"]
    assert kept["spec"]["containers"][0]["image"] == "pagoda-engine:9.9.9"


def test_the_plan_in_the_status_is_the_one_of_the_pods(world):
    """A planner of another version would reckon otherwise; what runs was made by the one before."""
    world.run()
    before = copy.deepcopy(world.service["status"]["plan"])
    world.given(model=dataclasses.replace(world.facts.model, weight_bytes=4 << 30)).step()
    assert world.reason("UpToDate") == ("False", "UpgradeAvailable")
    assert world.service["status"]["plan"] == before


def test_differences_are_paths_by_name():
    old = {"spec": {"containers": [{"name": "a", "image": "x:1", "args": ["1"]}], "hostNetwork": True}}
    new = {"spec": {"containers": [{"name": "b", "image": "x:1"}, {"name": "a", "image": "x:2", "args": ["2"]}]}}
    assert list(differences(old, new)) == [
        "spec.containers.a.args",
        "spec.containers.a.image (x:1 -> x:2)",
        "spec.containers.b",
        "spec.hostNetwork",
    ]


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_deployment_of_a_released_operator_keeps_its_template(world, path):
    """The golden hashes: what was asked is read as it was then, and the template stays what it was, bit by bit.

    Should this fail after a change of yours, all pods of all users would be replaced when they upgrade.
    """
    found = yaml.safe_load(path.read_text())
    live, name = found["deployment"], found["deployment"]["metadata"]["name"]
    world.service, world.settings = found["service"], Settings(engine_image="pagoda-engine:9.9.9", engine_env=(PROXY,))
    world.given(
        model=ModelFacts(**found["model"]),
        nodes=tuple(map(Node.of, found["nodes"])),
        children={("Deployment", name): live},
    )
    world.edit(replicas=3).step()
    deployment = world.child("Deployment", name)
    assert deployment["spec"]["replicas"] == 3, "it was written"
    assert deployment["metadata"]["annotations"][ASKED_ANNOTATION] == found["asked"]
    assert digest(deployment["spec"]["template"]) == found["template"]
    assert world.reason("UpToDate") == ("False", "UpgradeAvailable")
