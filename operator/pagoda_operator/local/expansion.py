"""`$(VAR)` in a container's command, args and env, as Kubernetes expands it.

The syntax is that of k8s.io/kubernetes/third_party/forked/golang/expansion: `$(NAME)` becomes the value, an unknown
name is left as it stands, and `$$` is one `$` that begins nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with each `$(NAME)` of `variables` replaced, once: values are not expanded again."""

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "$"
        return variables.get(name, match[0])

    return _REFERENCE.sub(replacement, text)
