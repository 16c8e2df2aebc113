"""Which template a service's pods have: the one that they were made from, until something else is asked for.

What the operator makes of a spec changes with its version and with the administrator's settings (engine image, proxies,
drain times). Neither is a wish to restart every model of a cluster. So a Deployment keeps, in two annotations, its
template as it was made, and a hash of what was asked then: the part of the spec that shapes pods, the kind of GPU that
they were planned for, and the service's `pagoda.dev/upgrade`. While the hash is the same, the kept template is what is
desired (also against edits by hand); where it is another one, or the annotations are gone, the template is made anew.

A third annotation has the Deployment's generation from before. With it anybody, at any time, can tell whether the
Deployment's controller has seen the template, and not only some other change: until then its counts are of the former.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pagoda_operator.api.names import (
    AFTER_ANNOTATION,
    ASKED_ANNOTATION,
    TEMPLATE_ANNOTATION,
    UPGRADE_ANNOTATION,
    Object,
)
from pagoda_operator.api.spec import Spec
from pagoda_operator.core.diff import LIST_KEYS, differs
from pagoda_operator.planner.placement import Placement

SHAPELESS: Final[dict[str, Any]] = {
    "replicas": True,
    "autoscaling": True,
    "rollout": True,
    "cache": {"size", "storage_class_name", "retain"},
}
"""Fields of the spec that change nothing about a pod; a new field shapes pods unless it is named here."""


@dataclass(frozen=True, slots=True)
class KeptTemplate:
    """A Deployment with the template that it is to have; `newest` is what would be made now, where that differs."""

    deployment: Object
    newest: Object | None = None


def asked_for(service: Object, spec: Spec, placement: Placement) -> str:
    """A hash of all that may replace a service's pods.

    Defaults are left out, so that a field which a later version adds changes nothing; for the same reason the default
    of a field never changes within a version of the API. Of the placement only the kind of GPU counts: a later
    planner may choose other numbers for the same spec.
    """
    shape = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=SHAPELESS)
    asked = {
        "spec": {name: value for name, value in shape.items() if value not in ({}, [])},
        "device": "cpu" if placement.gpu is None else placement.gpu.product,
        "upgrade": service["metadata"].get("annotations", {}).get(UPGRADE_ANNOTATION, ""),
    }
    return digest(asked)


def keep_template(deployment: Object, asked: str, live: Object | None) -> KeptTemplate:
    """`deployment`, as it was just made, with the template and the annotations that it is to have."""
    made = deployment["spec"]["template"]
    text = _text(made)
    kept = _kept(live, asked)
    if kept is None or kept == text:
        return KeptTemplate(_with(deployment, made, text, asked, live))
    return KeptTemplate(_with(deployment, json.loads(kept), kept, asked, live), newest=made)


def has_new_template(deployment: Object, live: Object) -> bool:
    """Whether `deployment` is to have another template than its `live` self was given.

    By what both keep of it, since a server stores a template otherwise than it was sent: it drops what is empty, a
    policy changes an image.
    """
    given = _annotations(live).get(TEMPLATE_ANNOTATION)
    if given is None:
        return differs(deployment["spec"]["template"], live["spec"]["template"])
    return bool(given != _annotations(deployment).get(TEMPLATE_ANNOTATION))


def is_unseen(live: Object) -> bool:
    """Whether the Deployment's controller has not seen its template yet."""
    after = _annotations(live).get(AFTER_ANNOTATION, "")
    seen = live.get("status", {}).get("observedGeneration", 0)
    # One that the server took for the same as before has made no new generation.
    return bool(after.isdigit() and seen <= int(after) < live["metadata"].get("generation", 0))


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Where two templates differ, as paths: `spec.containers.engine.image (a:1 -> a:2)`. Only images are shown with
    their values: environments hold what is not everybody's."""
    if old == new:
        return
    old, new = _by_name(old, path), _by_name(new, path)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif path.endswith(".image"):
        yield f"{path} ({old} -> {new})"
    else:
        yield path


def digest(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()[:16]


def _kept(live: Object | None, asked: str) -> str | None:
    """The template that a live Deployment keeps for this very wish, in JSON."""
    annotations = {} if live is None else _annotations(live)
    text = annotations.get(TEMPLATE_ANNOTATION)
    if text is None or annotations.get(ASKED_ANNOTATION) != asked:
        return None
    try:
        template = json.loads(text)
    except ValueError:
        return None  # somebody's edit: what can't be read can't be kept
    return text if isinstance(template, dict) else None


def _with(deployment: Object, template: Object, text: str, asked: str, live: Object | None) -> Object:
    metadata = deployment["metadata"]
    kept = {TEMPLATE_ANNOTATION: text, ASKED_ANNOTATION: asked}
    if live is None:
        kept[AFTER_ANNOTATION] = "0"
    elif _annotations(live).get(TEMPLATE_ANNOTATION) != text:
        kept[AFTER_ANNOTATION] = str(live["metadata"].get("generation", 0))
    elif (after := _annotations(live).get(AFTER_ANNOTATION)) is not None:
        kept[AFTER_ANNOTATION] = after
    return {
        **deployment,
        "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **kept}},
        "spec": {**deployment["spec"], "template": template},
    }


def _annotations(obj: Object) -> Object:
    return dict(obj["metadata"].get("annotations") or {})


def _by_name(value: Any, path: str) -> Any:
    """A list that merges by a key, as a dict by that key."""
    key = LIST_KEYS.get(path.rpartition(".")[2])
    if key is None or not isinstance(value, list):
        return value
    return {item[key]: item for item in value}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
