"""Addresses of this machine that pods can have: 127.0.0.2 and up, all of which Linux takes for its own."""

from __future__ import annotations

import errno
import socket
import sys
from ipaddress import IPv4Address

FIRST = IPv4Address("127.0.0.2")
LAST = IPv4Address("127.0.0.254")


class NoAddress(Exception):
    """No address is left or usable; the message says what to do."""


class Addresses:
    """Hands out addresses on which all of a pod's ports are free, also of other programs' listeners."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, ports: list[int]) -> str:
        """The first free address. Raises NoAddress."""
        for number in range(int(FIRST), int(LAST) + 1):
            ip = str(IPv4Address(number))
            if ip not in self._taken and all(is_free(ip, port) for port in ports):
                self._taken.add(ip)
                return ip
        raise NoAddress(f"no address from {FIRST} to {LAST} has port {ports} free; end what listens there")

    def give_back(self, ip: str) -> None:
        self._taken.discard(ip)


def is_free(ip: str, port: int) -> bool:
    """Whether a server could listen there now. Raises NoAddress where this machine does not have the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that lingers from an earlier one is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                fix = f"; add it: sudo ifconfig lo0 alias {ip}" if sys.platform == "darwin" else ""
                raise NoAddress(f"this machine does not have the address {ip}, which a pod needs{fix}") from None
            return False
    return True


def free_port(ip: str, preferred: int) -> int:
    """`preferred` where it is free on `ip`, else any that is. Raises NoAddress."""
    if is_free(ip, preferred):
        return preferred
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])
