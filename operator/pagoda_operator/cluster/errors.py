"""How a cluster says no. Both implementations of `Cluster` raise these and nothing else.

    ClusterError
    ├── NotFound        no such object, or no such kind or namespace                      404
    ├── AlreadyExists   `create` met an object of that name                               409
    ├── Conflict        another field manager, resourceVersion or uid stands in the way   409
    ├── Expired         the continuation of a list, or a watch's start, is too old        410
    ├── Terminating     the namespace is being deleted: nothing is made in it any more    403
    ├── Forbidden       not allowed: RBAC, a ResourceQuota                                403
    ├── Invalid         refused for what it is; sending it again can't help               400, 422, other 4xx
    └── Unavailable     no answer, or none for now; the same call may succeed later       401, 408, 429, 5xx, silence

`Forbidden` and `Invalid` have one reader, the user: their message is the server's own and ends in a condition.
`Unavailable` and `Conflict` have one reader, the work queue, which waits and tries again. 401 is among
them since tokens rotate.
"""

from __future__ import annotations


class ClusterError(Exception):
    """A call that the cluster did not do.

    `message` is the server's sentence; `status` the HTTP status it came with, or None where there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class NotFound(ClusterError):
    """No such object; also where its kind is not served or its namespace does not exist."""


class AlreadyExists(ClusterError):
    """`create` met an object of that kind and name."""


class Conflict(ClusterError):
    """Somebody else owns a field that was applied without force, or the object is not the one that was meant.

    The latter is an optimistic lock that failed: `replace` by resourceVersion, `delete` by uid. An API server answers
    so too when it lost a race of its own: nothing was written, and what is live must be looked at again.
    """


class Expired(ClusterError):
    """A list can't be continued from where it was: start it again."""


class Terminating(ClusterError):
    """The namespace is being deleted: nothing new can be made in it, and nothing has to be."""


class Forbidden(ClusterError):
    """Understood and refused: RBAC, an exceeded ResourceQuota."""


class Invalid(ClusterError):
    """Refused for what the object is: schema, CEL rules, immutable fields, admission."""


class Unavailable(ClusterError):
    """No answer, or none for now. `retry_after` is what the server asked for, in seconds, or None."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after
