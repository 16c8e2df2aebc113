"""Objects as they are kept: their text, since an object of Python takes ten times the room of its JSON."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

from pagoda_operator.api.names import Object

Key = TypeVar("Key", bound=Hashable)

OPEN: Final = 256
"""Objects that were read last stay read: a service is looked at for several reasons at once."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One state of an object; its resourceVersion is no part of the text, so that equal states have equal texts."""

    uid: str
    version: int
    text: bytes

    @classmethod
    def of(cls, obj: Object) -> Self:
        metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
        text = json.dumps(obj | {"metadata": metadata}, separators=(",", ":"))
        return cls(metadata["uid"], version_of(obj), text.encode())

    def read(self) -> Object:
        obj: Object = json.loads(self.text)
        obj["metadata"]["resourceVersion"] = str(self.version)
        return obj


class Shelf(Generic[Key]):
    """Kept objects by key."""

    def __init__(self) -> None:
        self._kept: dict[Key, Kept] = {}
        self._open: OrderedDict[Key, Object] = OrderedDict()

    def __getitem__(self, key: Key) -> Object:
        """The object: read it, don't change it. Raises KeyError."""
        obj = self._open.get(key)
        if obj is None:
            obj = self._open[key] = self._kept[key].read()
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
        return obj

    def __iter__(self) -> Iterator[Key]:
        return iter(self._kept)

    def kept(self, key: Key) -> Kept | None:
        return self._kept.get(key)

    def put(self, key: Key, kept: Kept) -> None:
        self._kept[key] = kept
        self._open.pop(key, None)

    def pop(self, key: Key) -> Object | None:
        """Take an object out; None where there is none."""
        if key not in self._kept:
            return None
        obj = self[key]
        del self._kept[key], self._open[key]
        return obj


def version_of(obj: Object) -> int:
    """resourceVersions are numbers that grow, guaranteed since Kubernetes 1.35 and true of etcd long before (KEP-5504).

    Raises ValueError on one that is none.
    """
    return int(obj["metadata"]["resourceVersion"])
