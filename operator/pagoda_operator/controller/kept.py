"""Objects as they are kept: their text, since an object of Python takes ten times the room of its JSON."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pydantic_core import from_json, to_json

from pagoda_operator.api.names import Object

Key = TypeVar("Key", bound=Hashable)

OPEN: Final = 512
"""Objects that were put or read last stay as they are: one that changes seldom changes once, and a service is looked at
for several reasons at once."""


@dataclass(slots=True)
class Kept:
    """What is known of an object without reading it. `text` is None as long as the object itself is at hand."""

    uid: str
    version: int
    text: bytes | None = None


class Shelf(Generic[Key]):
    """Kept objects by key: those in use as objects, all others as text."""

    def __init__(self) -> None:
        self._kept: dict[Key, Kept] = {}
        self._open: OrderedDict[Key, Object] = OrderedDict()

    def __getitem__(self, key: Key) -> Object:
        """The object: read it, don't change it. Raises KeyError."""
        if (known := self._open.get(key)) is not None:
            return known
        kept = self._kept[key]
        obj: Object = from_json(kept.text or b"")
        obj["metadata"]["resourceVersion"] = str(kept.version)
        self._lay_open(key, obj)
        return obj

    def __iter__(self) -> Iterator[Key]:
        return iter(self._kept)

    def kept(self, key: Key) -> Kept | None:
        return self._kept.get(key)

    def put(self, key: Key, obj: Object) -> bool:
        """Keep this state of an object; returns whether it differs from the one before in more than its
        resourceVersion."""
        known, uid, version = self._kept.get(key), obj["metadata"]["uid"], version_of(obj)
        if known is not None and known.uid == uid and _alike(self[key], obj):
            known.version = version
            self._open[key] = obj
            return False
        self._kept[key] = Kept(uid, version)
        self._lay_open(key, obj)
        return True

    def pop(self, key: Key) -> None:
        """Keep an object no longer. Raises KeyError."""
        del self._kept[key]
        self._open.pop(key, None)

    def _lay_open(self, key: Key, obj: Object) -> None:
        self._open[key] = obj
        self._open.move_to_end(key)
        if len(self._open) > OPEN:
            closed, obj = self._open.popitem(last=False)
            kept = self._kept[closed]
            if kept.text is None:
                kept.text = to_json(obj)


def _alike(one: Object, other: Object) -> bool:
    """Whether two states of an object differ in nothing but their resourceVersion."""
    old, new = one["metadata"], other["metadata"]
    version = {"resourceVersion": new["resourceVersion"]}
    return bool(old | version == new and one | {"metadata": new} == other)


def version_of(obj: Object) -> int:
    """resourceVersions are numbers that grow, guaranteed since Kubernetes 1.35 and true of etcd long before (KEP-5504).

    Raises ValueError on one that is none.
    """
    return int(obj["metadata"]["resourceVersion"])
