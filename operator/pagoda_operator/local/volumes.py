"""A pod's volumes as folders of this machine, and its mount paths as paths in them.

A local process sees the host's root, so a mount can't be made to appear at `/models`; instead the path is rewritten
wherever the pod's own text names it (command, args, env, working directory).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pagoda_operator.api.names import Object

_BEFORE = r"(?<![^\s=:,'\"])"
"""A path begins a word, or follows what separates one from its flag, variable or neighbour."""
_AFTER = r"(?=[/\s:,'\"]|$)"


def volume_folders(spec: Object, folder: Path, claims: Callable[[str], Path]) -> dict[str, Path]:
    """The folder of each volume of a pod spec by its name; an emptyDir's is made under `folder`.

    Raises ValueError for a kind of volume that can't be a folder here.
    """
    folders: dict[str, Path] = {}
    for volume in spec.get("volumes", ()):
        name = volume["name"]
        if "emptyDir" in volume:
            folders[name] = folder / name
            folders[name].mkdir(parents=True, exist_ok=True)
        elif "persistentVolumeClaim" in volume:
            folders[name] = claims(volume["persistentVolumeClaim"]["claimName"])
        elif "hostPath" in volume:
            folders[name] = Path(volume["hostPath"]["path"])
        else:
            kind = next((key for key in volume if key != "name"), "nothing")
            raise ValueError(
                f"volume {name!r} is {kind}; here a volume can be emptyDir, persistentVolumeClaim or hostPath"
            )
    return folders


@dataclass(frozen=True, slots=True)
class Mounts:
    """One container's mount paths and the folders that stand for them."""

    folders: Mapping[str, Path]

    @classmethod
    def of(cls, container: Object, volumes: Mapping[str, Path]) -> Mounts:
        """Raises ValueError where a mount names a volume that the pod does not have."""
        return cls(dict(_mount(mount, volumes) for mount in container.get("volumeMounts", ())))

    def rewrite(self, text: str) -> str:
        """`text` with every mount path in it replaced by its folder, in one pass: a folder may lie under `/tmp` too."""
        if not self.folders:
            return text
        # The longest first, or /models/a would be read as a path in /models where both are mounts.
        paths = "|".join(re.escape(path) for path in sorted(self.folders, key=len, reverse=True))
        return re.sub(f"{_BEFORE}(?:{paths}){_AFTER}", lambda match: str(self.folders[match[0]]), text)

    def rewrite_all(self, texts: Iterable[str]) -> list[str]:
        return [self.rewrite(text) for text in texts]


def _mount(mount: Object, volumes: Mapping[str, Path]) -> tuple[str, Path]:
    name = mount["name"]
    if name not in volumes:
        raise ValueError(f"volumeMounts names {name!r}, which is no volume of the pod; it has {sorted(volumes)}")
    folder = volumes[name] / mount.get("subPath", "")
    folder.mkdir(parents=True, exist_ok=True)
    return mount["mountPath"].rstrip("/"), folder
