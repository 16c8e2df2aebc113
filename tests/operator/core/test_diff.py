"""What is live may hold more than what is desired, but nothing else."""

import pytest

from pagoda_operator.core.diff import differs, stamped


def child(**spec):
    return {"kind": "X", "metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize(
    ("desired", "live", "written"),
    [
        ({"a": 1}, {"a": 1}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, {}, True),
        ({"a": True}, {"a": 1}, True),
        ({"a": {}}, {"a": {"b": 1}}, False),
        ({"args": ["x", "y"]}, {"args": ["x", "y"]}, False),
        ({"args": ["x"]}, {"args": ["x", "y"]}, True),
        ({"args": ["y", "x"]}, {"args": ["x", "y"]}, True),
        ({"args": []}, {"args": None}, True),
        ({"env": [{"name": "A"}]}, {"env": [{"name": "B"}, {"name": "A", "value": ""}]}, False),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}, True),
        ({"env": [{"name": "A"}]}, {"env": [{"name": "B"}]}, True),
        (
            {"volumeMounts": [{"mountPath": "/a", "name": "v"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "w"}]},
            True,
        ),
        ({"ports": [{"port": 80}]}, {"ports": [{"port": 80, "nodePort": 30000}]}, False),
        ({"ports": [{"port": 80}]}, {"ports": [{"port": 80}, {"port": 81}]}, True),
    ],
)
def test_a_write_is_due_where_a_desired_field_is_not_live(desired, live, written):
    assert differs(child(**desired), child(**live)) is written


def test_a_field_that_is_no_longer_desired_shows_in_the_stamp():
    before, after = stamped(child(a=1, b=2)), stamped(child(a=1))
    assert not differs(child(a=1), before)
    assert differs(after, before)


def test_a_stamp_depends_on_the_fields_and_not_on_their_order():
    assert stamped(child(a=1, b=2)) == stamped(child(b=2, a=1))
    assert stamped(child(a=1)) != stamped(child(a=2))


def test_a_stamp_leaves_the_annotations_that_there_are():
    obj = child()
    obj["metadata"]["annotations"] = {"a": "b"}
    assert stamped(obj)["metadata"]["annotations"].keys() == {"a", "pagoda.dev/applied"}
    assert obj["metadata"]["annotations"] == {"a": "b"}
