"""The second half of a plan: which children there should be, which of them must be written, which must go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pagoda_operator.api.names import Object
from pagoda_operator.builders.hpa import horizontal_pod_autoscaler
from pagoda_operator.builders.pdb import pod_disruption_budget
from pagoda_operator.builders.pvc import persistent_volume_claim
from pagoda_operator.builders.scaledobject import scaled_object
from pagoda_operator.builders.service import service
from pagoda_operator.builders.serviceaccount import service_account
from pagoda_operator.builders.workload import Workload, claim_name
from pagoda_operator.core.diff import differs, stamped
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.settings import Settings
from pagoda_operator.core.template import has_new_template

Key = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A child to delete; `uid` is a precondition, so that a successor of the same name is never hit."""

    kind: str
    name: str
    uid: str


Builder = Callable[[Workload, Facts, Settings], Object | None]


def _claim(workload: Workload, facts: Facts, _: Settings) -> Object:
    key = ("PersistentVolumeClaim", claim_name(workload.name))
    live = facts.children.get(key)
    claim = persistent_volume_claim(workload, live, may_grow=key not in facts.refused)
    if live is None or workload.spec.cache.storage_class_name:
        return claim
    # The default class was filled in for us: to ask for it now would be a write that changes nothing. Where it was
    # asked for once, it has to be asked for ever, since to take it back would be a change of what can't change.
    classless = {**claim, "spec": {name: value for name, value in claim["spec"].items() if name != "storageClassName"}}
    return claim if differs(stamped(classless), live) else classless


GROUNDS: Final[tuple[Builder, ...]] = (
    lambda workload, _facts, _settings: service_account(workload),
    _claim,
    lambda workload, _facts, _settings: service(workload),
    lambda workload, _facts, _settings: pod_disruption_budget(workload),
)
"""What pods refer to: applied before them."""

POD_NEEDS: Final = ("ServiceAccount", "PersistentVolumeClaim")
"""Pods would use a foreign object under these kinds' names, so that there are no pods while there is a conflict; and
without one they could not be made, and would only be tried for less and less often."""


def wanted(workload: Workload, deployment: Object, facts: Facts, settings: Settings) -> dict[Key, Object]:
    """Every child that there should be, stamped, in the order in which they are applied."""
    built = [build(workload, facts, settings) for build in GROUNDS]
    if not _pods_lack(facts, key_of(deployment)):
        built.append(deployment)
    built += [scaled_object(workload), horizontal_pod_autoscaler(workload)]
    return {key_of(child): stamped(child) for child in built if child is not None}


def _pods_lack(facts: Facts, deployment: Key) -> bool:
    """Whether pods should not be, or can't be yet: those that there are stay when one of their needs is refused."""
    if any(kind in POD_NEEDS for kind, _ in facts.conflicts):
        return True
    refused = any(key[0] in POD_NEEDS and key not in facts.children for key in facts.refused)
    return refused and deployment not in facts.children


def to_apply(desired: Mapping[Key, Object], live: Mapping[Key, Object]) -> tuple[Object, ...]:
    """The desired children that are missing or differ. One that is being deleted is made anew when it is gone."""
    return tuple(
        child
        for key, child in desired.items()
        if key not in live or (not _terminating(live[key]) and differs(child, live[key]))
    )


def to_delete(desired: Mapping[Key, Object], live: Mapping[Key, Object], owner_uid: str) -> tuple[ObjectRef, ...]:
    """The children that nobody wants any more; only what this very service controls, never what was left behind."""
    return tuple(
        ObjectRef(kind, name, child["metadata"]["uid"])
        for (kind, name), child in sorted(live.items())
        if (kind, name) not in desired and not _terminating(child) and _controlled_by(child, owner_uid)
    )


def replaces_pods(apply: tuple[Object, ...], live: Mapping[Key, Object]) -> bool:
    """Whether what is about to be applied changes the template of pods that exist."""
    return any(
        child["kind"] == "Deployment" and key_of(child) in live and has_new_template(child, live[key_of(child)])
        for child in apply
    )


def key_of(child: Object) -> Key:
    return child["kind"], child["metadata"]["name"]


def _terminating(child: Object) -> bool:
    return "deletionTimestamp" in child["metadata"]


def _controlled_by(child: Object, uid: str) -> bool:
    owners = child["metadata"].get("ownerReferences", [])
    return any(owner["uid"] == uid and owner.get("controller", False) for owner in owners)
