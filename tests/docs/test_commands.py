"""Commands that the documentation names exist, with the flags that it gives them."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", MAKEFILE, re.MULTILINE))


@functools.cache
def help_of(*command: str) -> str | None:
    """What a command says of itself; None where it does not exist."""
    result = subprocess.run(
        [sys.executable, "-m", "pagoda_engine.cli", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
    )
    return result.stdout if result.returncode == 0 else None


def test_make_targets_exist(commands):
    """Every `make X` is a target of the Makefile, and every `VARIABLE=` one that it reads."""
    for command in commands:
        if not (match := re.match(r"make ((?:[a-z][a-z0-9-]*|[A-Z_]+=\S*)(?: |$))+", command)):
            continue
        for word in match[0].split()[1:]:
            name, is_variable, _ = word.partition("=")
            if is_variable:
                assert re.search(rf"\$[({{](\w+ )?{name}[)}},]|^{name} \?=", MAKEFILE, re.MULTILINE), f"`{command}`"
            else:
                assert name in TARGETS, f"`{command}`: the Makefile has no target {name}"


def test_pagoda_commands_and_their_flags_exist(commands):
    """Every `pagoda X --flag` is understood by the command itself."""
    for command in commands:
        words = re.sub(r"^\S*bin/", "", command).split()
        if len(words) < 2 or words[0] != "pagoda" or not re.fullmatch(r"[a-z]+", words[1]):
            continue
        text = help_of(words[1])
        assert text is not None, f"`{command}`: there is no command {words[1]!r}"
        if len(words) > 2 and re.search(rf"\{{[a-z,]*\b{re.escape(words[2])}\b[a-z,]*\}}", text):
            text = help_of(words[1], words[2])
            assert text is not None, f"`{command}`"
        for word in words[2:]:
            if flag := re.match(r"--?[a-z][a-z0-9-]*", word):
                assert re.search(rf"(?<![\w-]){flag[0]}(?![\w-])", text), f"`{command}`: no flag {flag[0]}"


@pytest.mark.parametrize(
    "target", sorted(re.findall(r"[a-z][a-z0-9-]*", MAKEFILE.partition(".PHONY:")[2].split("\n")[0]))
)
def test_every_phony_target_does_something(target):
    """A target that is declared and has no rule says 'Nothing to be done' and succeeds."""
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"{target} is in .PHONY and has no rule"
