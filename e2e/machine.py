"""What the harness asks of the machine it runs on, besides the programs that it builds itself."""

from __future__ import annotations

import os
import shutil
import sys

from e2e.binaries import Missing

COMMANDS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "openssl": "openssl"}
"""Commands and the Debian packages that bring them."""


def check() -> None:
    """Raises Missing where network namespaces can't be made here."""
    if sys.platform != "linux":
        raise Missing(f"pods run in Linux network namespaces; this is {sys.platform}")
    if os.geteuid() != 0:
        raise Missing("network namespaces for pods need root; run `sudo make e2e`, or as root in a container")
    lacking = sorted({package for command, package in COMMANDS.items() if shutil.which(command) is None})
    if lacking:
        raise Missing(f"install {' '.join(lacking)} (`apt-get install {' '.join(lacking)}`)")
