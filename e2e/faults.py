"""What can go wrong between a client and the API server, as data: rules that the fault proxy follows."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

PATH = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?"
    r"(?:/(?P<subresource>[a-z]+))?"
)
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request in RBAC's words; `resource` is empty for what is no object (discovery)."""

    verb: str
    resource: str = ""

    @classmethod
    def of(cls, method: str, path: str, query: Mapping[str, str]) -> Call:
        found = PATH.fullmatch(path)
        if found is None:
            return cls("get")
        resource = "/".join(part for part in (found["resource"], found["subresource"]) if part)
        if method in VERBS:
            return cls(VERBS[method], resource)
        if query.get("watch") == "true":
            return cls("watch", resource)
        return cls("get" if found["name"] else "list", resource)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The API server answers with this status and does nothing."""

    code: int
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer for so many seconds, then the connection breaks; nothing was done."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection breaks before the request arrives."""


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """The request is done, and the connection breaks before the answer arrives."""


@dataclass(frozen=True, slots=True)
class Delay:
    """All is well, so many seconds later."""

    seconds: float


Fault: TypeAlias = Refuse | Hang | Drop | LoseAnswer | Delay


@dataclass(frozen=True, slots=True)
class Rule:
    """Spoils a share (`rate`, 0 to 1) of the calls with one of these verbs and resources; empty means any."""

    fault: Fault
    rate: float = 1.0
    verbs: Collection[str] = ()
    resources: Collection[str] = ()

    def concerns(self, call: Call) -> bool:
        return (not self.verbs or call.verb in self.verbs) and (not self.resources or call.resource in self.resources)
