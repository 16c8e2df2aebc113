"""Becomes a container's command inside its pod's network namespace, with mounts of its own.

Run as a script: `enter.py --net FILE [--bind FOLDER PATH]... [--read-only FOLDER,...] -- COMMAND...`. What is mounted
here is seen by this process and its children alone, and goes with them. With `--read-only` the whole tree is, except
the listed folders and the bound ones: a container with `readOnlyRootFilesystem` may write to its volumes alone.
Standard library only; the system calls that Python lacks go through ctypes (setns(2), mount(2), mount_setattr(2)).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 0x1
SYS_MOUNT_SETATTR = 442
"""The same number on every architecture; Linux 5.12."""

libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", required=True)
    parser.add_argument("--bind", nargs=2, action="append", default=[])
    parser.add_argument("--read-only")
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
    if options.read_only is not None:
        writable = [folder for folder in options.read_only.split(",") if folder]
        for folder in writable:
            _mount(folder, folder, MS_BIND)
        _set_read_only("/", recursive=True)
        for folder in (*writable, *(path for _, path in options.bind)):
            _set_writable(folder)
    os.execvp(options.command[0], options.command)


def _appear(path: str) -> None:
    """Make `path` exist in an empty file system over its topmost folder below /, which the host need not have."""
    top = os.path.realpath("/" + path.split("/")[1])
    if top == os.path.realpath(path) or not os.path.isdir(top):
        raise SystemExit(f"enter: {path} can't be mounted: the host has no such folder")
    top = os.path.realpath(os.path.dirname(_first_missing(path)))
    _check(libc.mount(b"none", top.encode(), b"tmpfs", 0, b"mode=755"), f"mount tmpfs on {top}")
    os.makedirs(path)


def _first_missing(path: str) -> str:
    while not os.path.isdir(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path


def _set_read_only(path: str, *, recursive: bool) -> None:
    _set_attributes(path, MountAttributes(set=MOUNT_ATTR_RDONLY), AT_RECURSIVE if recursive else 0)


def _set_writable(path: str) -> None:
    _set_attributes(path, MountAttributes(clear=MOUNT_ATTR_RDONLY), 0)


def _set_attributes(path: str, attributes: MountAttributes, flags: int) -> None:
    size = ctypes.sizeof(attributes)
    result = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), size)
    _check(result, f"mount_setattr {path}")


def _mount(source: str, target: str, flags: int) -> None:
    _check(libc.mount(source.encode(), target.encode(), None, flags, None), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise SystemExit(f"enter: {what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
