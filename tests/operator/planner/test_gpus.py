"""GPU classes are read from Node labels, whatever state the nodes are in."""

import pytest

from pagoda_operator.planner.gpus import GpuClass, gpu_classes, gpus_asked, unlabelled
from pagoda_operator.planner.nodes import Node

TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def classes(*nodes, requested=None, selector=None, tolerations=(TOLERATION,)):
    return gpu_classes([Node.of(node) for node in nodes], requested or {}, selector or {}, tolerations)


def test_nodes_are_grouped_by_product_and_never_stand_for_one_another(node):
    found = classes(node("a"), node("b", product="NVIDIA-L4", memory="23034", count="1"), node("c"), requested={"a": 3})
    assert found == (
        GpuClass("NVIDIA-H100-80GB-HBM3", 81559, 8, (8, 5)),
        GpuClass("NVIDIA-L4", 23034, 1, (1,)),
    )


def test_counts_are_allocatable_and_not_the_label(node):
    assert classes(node(count="2"))[0].gpus_per_node == 2


def test_nodes_that_disagree_on_memory_are_planned_by_the_least(node):
    assert classes(node("a", memory="81559"), node("b", memory="80000"))[0].memory_mib == 80000


def test_counts_are_quantities():
    """The API server writes 1000 as 1k."""
    node = Node.of({"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "1k"}}})
    assert node.gpus == 1000
    assert gpus_asked({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1k"}}}]}) == 1000


def test_a_node_without_gpus_has_no_class(node):
    assert classes(node(count="0")) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"unschedulable": True}},
        {"status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "False"}]}},
    ],
    ids=["cordoned", "not ready"],
)
def test_a_node_that_is_away_stays_in_its_class_with_nothing_free(node, change):
    """Or a reboot would move services to other GPUs."""
    assert classes(node(**change)) == (GpuClass("NVIDIA-H100-80GB-HBM3", 81559, 8, ()),)


def test_a_node_that_the_selector_excludes_is_not_counted(node):
    assert classes(node(), selector={"zone": "a"}) == ()
    assert len(classes(node(), selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"})) == 1


@pytest.mark.parametrize(
    ("toleration", "admitted"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "value": "absent"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Equal", "value": "present"}, False),
    ],
)
def test_a_tainted_node_is_counted_only_where_it_is_tolerated(node, toleration, admitted):
    assert bool(classes(node(), tolerations=[toleration])) is admitted


def test_a_taint_that_only_prefers_excludes_nothing(node):
    taint = {"key": "dear", "effect": "PreferNoSchedule"}
    assert classes(node(spec={"taints": [taint]}))


@pytest.mark.parametrize(
    "labels", [{}, {"nvidia.com/gpu.product": "A"}, {"nvidia.com/gpu.product": "A", "nvidia.com/gpu.memory": "n/a"}]
)
def test_gpus_of_unknown_kind_are_named_and_not_guessed(labels):
    node = {"metadata": {"name": "x", "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "1"}}}
    assert classes(node) == ()
    assert unlabelled([Node.of(node)], {}, ()) == ("x",)
    assert unlabelled([Node.of(node)], {"pool": "cpu"}, ()) == (), "what the pods may not use is no concern"


@pytest.mark.parametrize(
    ("product", "shared", "partitioned"),
    [
        ("NVIDIA-A100-SXM4-40GB", False, False),
        ("NVIDIA-A100-SXM4-40GB-SHARED", True, False),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", False, True),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED", True, True),
    ],
)
def test_suffixes_of_the_product_tell_sharing_and_partitions(product, shared, partitioned):
    gpu = GpuClass(product, 40960, 8)
    assert (gpu.shared, gpu.partitioned) == (shared, partitioned)
    assert gpu.title.startswith("A100-SXM4-40GB")


def test_groups_are_counted_node_by_node():
    assert GpuClass("x", 1, 8, (8, 5, 3)).groups_free(4) == 3
