"""Becomes a container's command inside its pod's network namespace, with mounts and a user of its own.

Run as a script: `enter.py PARENT_PID --net FILE [--bind FOLDER PATH]... [--resolve FILE] [--read-only FOLDER,...]
[--user UID:GID] -- COMMAND...`. `--resolve` names what is seen as /etc/resolv.conf. What is mounted here is seen by
this process and its children alone, and goes with them. With `--read-only` the whole tree is, except the listed folders
and the bound ones: a container with `readOnlyRootFilesystem` may write to its volumes alone. With `--user` it has no
capability but to read and search any file: an image's files are readable by all, and the interpreter that stands in for
an image may lie in a home folder.
Standard library only; the system calls that Python lacks go through ctypes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 0x1
SYS_MOUNT_SETATTR = 442
"""The same number on every architecture; Linux 5.12."""

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 8, 38, 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_READ_SEARCH = 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


class CapabilityHeader(ctypes.Structure):
    """struct __user_cap_header_struct of capset(2)."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class Capabilities(ctypes.Structure):
    """struct __user_cap_data_struct of capset(2): 32 capabilities."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def main(argv: list[str]) -> NoReturn:
    parser = argparse.ArgumentParser()
    parser.add_argument("parent", type=int)
    parser.add_argument("--net", required=True)
    parser.add_argument("--bind", nargs=2, action="append", default=[])
    parser.add_argument("--resolve")
    parser.add_argument("--read-only")
    parser.add_argument("--user")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    with open(options.net) as file:
        _check(libc.setns(file.fileno(), CLONE_NEWNET), f"setns {options.net}")
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _mount("none", "/", MS_REC | MS_PRIVATE)
    for folder, path in options.bind:
        if not os.path.isdir(path):
            _appear(path)
        _mount(folder, path, MS_BIND | MS_REC)
    if options.resolve is not None:
        _mount(options.resolve, "/etc/resolv.conf", MS_BIND)
    if options.read_only is not None:
        _make_read_only(
            [folder for folder in options.read_only.split(",") if folder], [path for _, path in options.bind]
        )
    if options.user is not None:
        _become(*map(int, options.user.split(":")))
        # The kernel forgets a tie to the parent when credentials change.
        _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl PR_SET_PDEATHSIG")
        if os.getppid() != options.parent:
            sys.exit(128 + signal.SIGKILL)
    os.execvp(options.command[0], options.command)


def _become(user: int, group: int) -> None:
    _check(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl PR_SET_KEEPCAPS")
    os.setgroups([group])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    one = 1 << CAP_DAC_READ_SEARCH
    header = CapabilityHeader(LINUX_CAPABILITY_VERSION_3, 0)
    _check(libc.capset(ctypes.byref(header), (Capabilities * 2)(Capabilities(one, one, one))), "capset")
    _check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0), "prctl PR_CAP_AMBIENT")
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS")


def _appear(path: str) -> None:
    """Make `path` exist in an empty file system over the deepest folder of its way that the host has."""
    above = os.path.dirname(path)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if above == "/":
        sys.exit(f"enter: {path} can't be mounted: the host has no folder on its way")
    _check(libc.mount(b"none", above.encode(), b"tmpfs", 0, b"mode=755"), f"mount tmpfs on {above}")
    os.makedirs(path)


def _make_read_only(writable: list[str], bound: list[str]) -> None:
    for folder in writable:
        _mount(folder, folder, MS_BIND)
    _set_attributes("/", MountAttributes(set=MOUNT_ATTR_RDONLY), AT_RECURSIVE)
    for folder in (*writable, *bound):
        _set_attributes(folder, MountAttributes(clear=MOUNT_ATTR_RDONLY), 0)


def _set_attributes(path: str, attributes: MountAttributes, flags: int) -> None:
    size = ctypes.sizeof(attributes)
    result = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), size)
    _check(result, f"mount_setattr {path}")


def _mount(source: str, target: str, flags: int) -> None:
    _check(libc.mount(source.encode(), target.encode(), None, flags, None), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        sys.exit(f"enter: {what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(sys.argv[1:])
