"""Server-side apply on plain dicts: who owns which field, and what an apply makes of an object.

The rules of sigs.k8s.io/structured-merge-diff, as far as objects of our kinds need them: structs and maps merge by key,
lists of known names merge by their items' keys, every other list is one value.
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pagoda_operator.api.names import Object

ItemKey: TypeAlias = tuple[tuple[str, Any], ...]
"""Names one item of a keyed list: `(("name", "engine"),)`."""
Path: TypeAlias = tuple[str | ItemKey, ...]
Fields: TypeAlias = frozenset[Path]

LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that merge, by field name; `ports` differ between containers and Services, see `_list_keys`."""


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """A field manager as `metadata.managedFields` tells them apart."""

    name: str
    operation: str
    subresource: str = ""


Owners: TypeAlias = Mapping[Manager, Fields]


@dataclass(frozen=True, slots=True)
class Clash:
    """A field that another manager owns with another value."""

    manager: Manager
    path: Path

    def __str__(self) -> str:
        return f'conflict with "{self.manager.name}": {path_text(self.path)}'


def apply(
    live: Object, wanted: Object, owners: Owners, manager: Manager, *, force: bool
) -> tuple[Object, Owners, list[Clash]]:
    """What `manager` applying `wanted` makes of `live`: object and owners, or `live` as it was and the clashes.

    Fields that the manager applied before and does not any more are removed, unless another manager owns them too.
    """
    desired, present = _fields(wanted), _fields(live)
    clashes = [
        Clash(other, path)
        for other, owned in owners.items()
        if other != manager
        for path in sorted(owned & desired.keys(), key=str)
        if path in present and present[path] != desired[path]
    ]
    if clashes and not force:
        return live, owners, clashes
    lost = {(clash.manager, clash.path) for clash in clashes}
    others = {
        other: frozenset(path for path in owned if (other, path) not in lost)
        for other, owned in owners.items()
        if other != manager
    }
    kept = frozenset[Path]().union(*others.values())
    result: Object = _merged(copy.deepcopy(live), wanted)
    for path in sorted(owners.get(manager, frozenset()) - desired.keys(), key=len):  # an item before its fields
        if not any(other[: len(path)] == path for other in kept):
            _remove(result, path, spare=desired)
    return result, _without_empty({**others, manager: frozenset(desired)}), []


def update(live: Object, replacement: Object, owners: Owners, manager: Manager) -> Owners:
    """The owners after `manager` wrote `replacement` in place of `live`: it owns what it changed."""
    before, after = _fields(live), _fields(replacement)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    theirs = {other: (owned & after.keys()) - changed for other, owned in owners.items() if other != manager}
    mine = (owners.get(manager, frozenset()) & after.keys()) | changed
    return _without_empty({**theirs, manager: mine})


def path_text(path: Path) -> str:
    """As the API server writes it: `.spec.template.spec.containers[name="engine"].image`."""
    return "".join(
        f".{step}" if isinstance(step, str) else f"[{','.join(f'{key}={value!r}' for key, value in step)}]"
        for step in path
    ).replace("'", '"')


def _without_empty(owners: Owners) -> Owners:
    return {manager: fields for manager, fields in owners.items() if fields}


def _fields(value: Any, path: Path = ()) -> dict[Path, Any]:
    """Every leaf with its value, and every item of a keyed list (without value: an item is owned by being there)."""
    return dict(_walk(value, path))


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    keys = _list_keys(path, value)
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _walk(child, (*path, name))
    elif keys:
        for item in value:
            here = (*path, _item_key(item, keys))
            yield here, None
            yield from _walk(item, here)
    elif path:
        yield path, value


def _list_keys(path: Path, value: Any) -> tuple[str, ...]:
    """The keys by which a list merges; none where it is one value (or no list, or empty)."""
    if not isinstance(value, list) or not value or not isinstance(path[-1], str):
        return ()
    if path[-1] == "ports":
        own = "containerPort" if "containerPort" in value[0] else "port"
        return (own, "protocol")
    return LIST_KEYS.get(path[-1], ())


def _item_key(item: Object, keys: tuple[str, ...]) -> ItemKey:
    # `protocol` is the one key with a default.
    return tuple((key, item.get(key, "TCP" if key == "protocol" else None)) for key in keys)


def _merged(live: Any, wanted: Any, path: Path = ()) -> Any:
    if isinstance(live, dict) and isinstance(wanted, dict):
        both = {name: _merged(live[name], wanted[name], (*path, name)) for name in wanted if name in live}
        return {**live, **copy.deepcopy({n: v for n, v in wanted.items() if n not in live}), **both}
    keys = _list_keys(path, wanted)
    if keys and isinstance(live, list):
        there = {_item_key(item, keys): item for item in live}
        items = []
        for item in wanted:
            key = _item_key(item, keys)
            items.append(_merged(there.pop(key, {}), item, (*path, key)))
        return [*items, *there.values()]
    return copy.deepcopy(wanted)


def _remove(value: Object, path: Path, spare: Mapping[Path, Any]) -> None:
    """Take a field out, and the maps and lists that are empty without it, unless they are in `spare`."""
    if len(path) > 1 and not isinstance(path[-2], str) and path[-1] in dict(path[-2]):
        return  # what names an item goes with the item only
    way: list[tuple[Any, str | ItemKey, Any]] = []
    here: Any = value
    for step in path:
        child = _child(here, step)
        if child is None:
            return
        way.append((here, step, child))
        here = child
    for depth, (parent, step, child) in reversed(list(enumerate(way))):
        if depth < len(way) - 1 and (child or path[: depth + 1] in spare):
            return
        if isinstance(step, str):
            del parent[step]
        else:
            parent[:] = [item for item in parent if item is not child]


def _child(parent: Any, step: str | ItemKey) -> Any:
    if isinstance(step, str):
        return parent.get(step) if isinstance(parent, dict) else None
    keys = tuple(key for key, _ in step)
    return next((item for item in parent if _item_key(item, keys) == step), None)
