"""Objects as they are kept: their text, packed, since an object of Python takes ten times the room of its JSON, and the
JSON of an object ten times the room of what sets it apart from others of its kind."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pydantic_core import from_json, to_json

from pagoda_operator.api.names import Object

Key = TypeVar("Key", bound=Hashable)

OPEN: Final = 512
"""Objects that were put or read last stay as they are: one that changes seldom changes once, and a service is looked at
for several reasons at once."""
LONGER: Final = 1.25
"""A text so many times as long as the one that its kind is packed by takes that one's place: it has more to tell of."""
WINDOW: Final = 32 << 10
"""Bytes that DEFLATE (RFC 1951) looks back: more of a dictionary costs time and is of no use."""


@dataclass(slots=True)
class Kept:
    """What is known of an object without reading it. `text` is packed (RFC 1950) with the text `like` as its
    dictionary, one for many; None until the object is put away for the first time since it changed."""

    uid: str
    version: int
    text: bytes | None = None
    like: bytes = b""

    def pack(self, text: bytes, like: bytes) -> None:
        packer = zlib.compressobj(level=1, zdict=like)
        self.text, self.like = packer.compress(text) + packer.flush(), like

    def unpack(self) -> Object:
        """The object of a text that is kept, with its newest version."""
        obj: Object = from_json(zlib.decompressobj(zdict=self.like).decompress(self.text or b""))
        obj["metadata"]["resourceVersion"] = str(self.version)
        return obj


class Shelf(Generic[Key]):
    """Kept objects by key: those in use as objects, all others as text, packed like others of the same `kind`."""

    def __init__(self, kind: Callable[[Key], Hashable]) -> None:
        self._kind = kind
        self._kept: dict[Key, Kept] = {}
        self._open: OrderedDict[Key, Object] = OrderedDict()
        self._like: dict[Hashable, bytes] = {}

    def __getitem__(self, key: Key) -> Object:
        """The object: read it, don't change it. Raises KeyError."""
        if (known := self._open.get(key)) is not None:
            return known
        obj = self._kept[key].unpack()
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
            self._close(*self._open.popitem(last=False))

    def _close(self, key: Key, obj: Object) -> None:
        kept, kind = self._kept[key], self._kind(key)
        if kept.text is not None:
            return  # it has not changed since
        text, like = to_json(obj), self._like.get(kind, b"")
        if LONGER * len(like) < len(text) <= WINDOW:
            self._like[kind] = like = text
        kept.pack(text, like)


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
