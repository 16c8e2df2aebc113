"""The pods' network: one bridge, and a network namespace with an address of its own for each pod.

A namespace has no name and belongs to a process that holds it open; when that process ends, the namespace and its veth
pair go with it. The bridge has an address too, so that host and pods reach each other; pods have no other route.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pagoda_operator.local import launcher

PREFIX = "pgd"
"""Of the names of bridges: `pgd<pid of the harness>`, so that what a killed run left can be told and removed."""
RANGE = ipaddress.ip_network("10.213.0.0/16")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A pod's place in the network; commands enter it through `namespace`."""

    ip: str
    namespace: Path
    holder: asyncio.subprocess.Process


class PodNetwork:
    """A /24 that this machine has no route to yet, with a bridge at its first address."""

    def __init__(self) -> None:
        remove_left_behind()
        subnet = next(net for net in RANGE.subnets(new_prefix=24) if not _overlaps(net))
        self.name = f"{PREFIX}{os.getpid()}"
        self.subnet = str(subnet)
        hosts = [str(host) for host in subnet.hosts()]
        self.gateway = hosts[0]
        self._free = hosts[1:]
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.gateway}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def close(self) -> None:
        _ip("link", "del", self.name)

    async def attach(self) -> Attachment:
        """A new namespace with the next free address; addresses are used again as late as can be."""
        ip = self._free.pop(0)
        holder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launcher.__file__, str(os.getpid())),
            *("unshare", "--net", "sh", "-c", "echo; exec sleep infinity"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        namespace = Path(f"/proc/{holder.pid}/ns/net")
        attachment = Attachment(ip, namespace, holder)
        try:
            if holder.stdout is None or await holder.stdout.readline() != b"\n":
                raise RuntimeError(f"unshare --net ended with {await holder.wait()}; may this user make namespaces?")
            veth = f"{self.name}.{ip.rsplit('.', 1)[1]}"
            await _ip_async("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            await _ip_async("link", "set", veth, "master", self.name, "up")
            inside = f"addr add {ip}/24 dev eth0\nlink set lo up\nlink set eth0 up\n"
            enter = ("nsenter", f"--net={namespace}", "ip", "-batch", "-")
            await _checked(enter, inside)
        except BaseException:
            await self.detach(attachment)
            raise
        return attachment

    async def detach(self, attachment: Attachment) -> None:
        if attachment.holder.returncode is None:
            attachment.holder.kill()
            await attachment.holder.wait()
        self._free.append(attachment.ip)


def remove_left_behind() -> None:
    """Bridges of harnesses that were killed before they could clean up."""
    for name in bridges():
        if not Path(f"/proc/{name.removeprefix(PREFIX)}").exists():
            _ip("link", "del", name)


def bridges() -> list[str]:
    """The harnesses' bridges on this machine, whoever made them."""
    names = [link["ifname"] for link in json.loads(_ip("-j", "link", "show", "type", "bridge") or "[]") if link]
    return [name for name in names if re.fullmatch(rf"{PREFIX}\d+", name)]


def _overlaps(net: ipaddress.IPv4Network) -> bool:
    routes = [route["dst"] for route in json.loads(_ip("-j", "-4", "route") or "[]")]
    return any(net.overlaps(ipaddress.ip_network(dst)) for dst in routes if dst != "default")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


async def _ip_async(*arguments: str) -> None:
    await _checked(("ip", *arguments))


async def _checked(command: Sequence[str], text: str = "") -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    _, errors = await process.communicate(text.encode())
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {errors.decode().strip()}")
