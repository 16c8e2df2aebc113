"""Whether a child must be written: are the fields that we want what is live?

The API server fills in defaults, other controllers add labels and annotations, admission adds more. So what is live may
hold more than what is desired, but never something else. Fields that were desired once and are no longer would pass
such a comparison; a hash of the last applied object, kept in an annotation, gives them away.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from pagoda_operator.api.names import APPLIED_ANNOTATION, Object

LIST_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ownerReferences": "uid",
}
"""Lists that server-side apply merges by a key, so that they may hold others' items; all other lists are one value."""


def stamped(desired: Object) -> Object:
    """The object as it is to be applied: with the hash of its fields in its annotations."""
    text = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    metadata = desired["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def differs(desired: Object, live: Object) -> bool:
    """Whether applying `desired`, as `stamped` returned it, would change `live`."""
    return not _holds(desired, live, "")


def _holds(desired: Any, live: Any, field: str) -> bool:
    """Whether `live` is `desired`, or that and more."""
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return False
        for name, value in desired.items():  # plain, since a plan compares a thousand values, most of them strings
            if name not in live:
                return False
            if type(value) is str:
                if value != live[name]:
                    return False
            elif not _holds(value, live[name], name):
                return False
        return True
    if isinstance(desired, list):
        return isinstance(live, list) and _holds_list(desired, live, LIST_KEYS.get(field))
    # In JSON true is not 1, in Python it is.
    return bool(desired == live) and isinstance(desired, bool) == isinstance(live, bool)


def _holds_list(desired: list[Any], live: list[Any], key: str | None) -> bool:
    if key is not None:
        by_key = {item[key]: item for item in live}
        live = [by_key[item[key]] for item in desired if item[key] in by_key]
    return len(desired) == len(live) and all(
        _holds(wanted, item, "") for wanted, item in zip(desired, live, strict=True)
    )
