"""What the harness asks of the machine it runs on, besides the programs that it builds itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from e2e.binaries import Missing

COMMANDS = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "prometheus": "prometheus",
}
"""Commands and the Debian packages that bring them."""

POD_TMP: Final = Path("/tmp")
"""Pods have their own mounted over it."""
_UNATTENDED = {"DEBIAN_FRONTEND": "noninteractive"}


def install(commands: Mapping[str, str] = COMMANDS) -> None:
    """Install the packages of commands that are missing, where that can be done without asking: as root on Debian."""
    lacking = _lacking(commands)
    if not lacking or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *lacking]):
        subprocess.run(["apt-get", "--quiet", "--quiet", *command], check=False, env=os.environ | _UNATTENDED)


def check() -> None:
    """Raises Missing where network namespaces can't be made here, or pods would not see the programs that they run."""
    if sys.platform != "linux":
        raise Missing(f"pods run in Linux network namespaces; this is {sys.platform}")
    if os.geteuid() != 0:
        raise Missing("network namespaces for pods need root; run `sudo make e2e`, or as root in a container")
    if lacking := _lacking(COMMANDS):
        raise Missing(f"install {' '.join(lacking)} (`apt-get install {' '.join(lacking)}`)")
    for folder in (Path(sys.prefix), Path(__file__).parents[1]):
        if folder.resolve().is_relative_to(POD_TMP):
            raise Missing(f"pods have a {POD_TMP} of their own, and would not find {folder}; move it elsewhere")


def _lacking(commands: Mapping[str, str]) -> list[str]:
    return sorted({package for command, package in commands.items() if shutil.which(command) is None})
