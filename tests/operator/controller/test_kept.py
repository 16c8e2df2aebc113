"""What is kept comes back as it was put, however long ago, and takes little room meanwhile."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pagoda_operator.controller.kept import OPEN, Shelf

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def obj(name, version, **rest):
    return {"metadata": {"name": name, "uid": f"uid-of-{name}", "resourceVersion": str(version)}, **rest}


def shelf():
    return Shelf(kind=lambda key: key[0])


@given(states=st.lists(st.tuples(st.sampled_from(["pod-0", "pod-1", "service-0"]), VALUE), min_size=1, max_size=12))
def test_what_was_put_last_is_read_after_others_took_its_place(states):
    """Texts of a kind are packed by one of them, which a longer one may replace: each is unpacked by its own."""
    kept, last = shelf(), {}
    for version, (name, value) in enumerate(states):
        key = tuple(name.split("-"))
        last[key] = obj(name, version, spec=value)
        kept.put(key, last[key])
        for filler in range(OPEN):
            kept.put(("filler", filler), obj(f"filler-{filler}", version))
    assert {key: kept[key] for key in last} == last


def test_a_new_version_of_the_same_is_no_change_and_is_what_is_read():
    kept = shelf()
    assert kept.put(("pod", 0), obj("a", 1, spec={"x": 1}))
    for filler in range(OPEN):
        kept.put(("filler", filler), obj(f"filler-{filler}", 1))
    assert not kept.put(("pod", 0), obj("a", 2, spec={"x": 1}))
    for filler in range(OPEN):
        kept.put(("filler", filler), obj(f"filler-{filler}", 2, spec=2))
    assert kept[("pod", 0)] == obj("a", 2, spec={"x": 1})
    assert kept.put(("pod", 0), obj("a", 3, spec={"x": 2}))


def test_what_is_longer_than_can_be_looked_back_is_kept_too():
    kept = shelf()
    long = obj("long", 1, spec=[f"{number:x}" for number in range(50_000)])
    kept.put(("pod", 0), obj("first", 1))
    kept.put(("pod", 1), long)
    for number in range(2, OPEN + 2):
        kept.put(("pod", number), obj(f"pod-{number}", 1))
    assert kept[("pod", 1)] == long
    assert len(kept.kept(("pod", 1)).like) < 100, "packed by another"


def test_objects_that_are_alike_take_a_tenth_of_their_text():
    kept, spec = shelf(), {"containers": [{"name": f"c-{number}", "args": [str(number)] * 5} for number in range(20)]}
    for number in range(2 * OPEN):
        kept.put(("pod", number), obj(f"pod-{number}", 1, spec={**spec, "nodeName": f"node-{number}"}))
    whole = len(json.dumps(obj("pod-0", 1, spec=spec)))
    texts = [text for number in range(OPEN) if (text := kept.kept(("pod", number)).text) is not None]
    assert len(texts) == OPEN
    assert sum(map(len, texts)) / OPEN < whole / 10
