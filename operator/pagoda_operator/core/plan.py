"""What to do about one service."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda_operator.api.names import Object


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A child to delete; `uid` is a precondition, so that a successor of the same name is never hit."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one service, in this order.

    apply          whole desired children, in order, only those that differ from what is live: nothing to do is empty.
                   Each carries apiVersion, kind, metadata.namespace and an ownerReference to the service.
    delete         children no longer wanted
    status         the service's whole status; write it where it differs from the service's own
    requeue_after  seconds until the service should be planned again without an event, or None
    model_uri      the URI whose facts the plan needs or used: keep reading it while `Facts.model` is None
    """

    apply: tuple[Object, ...]
    delete: tuple[ObjectRef, ...]
    status: Object
    requeue_after: float | None
    model_uri: str | None
