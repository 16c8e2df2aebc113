"""The project's Markdown files, and what of them is code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


def tracked() -> list[str]:
    """Paths of all files that are, or could be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (REPOSITORY / name).exists())


def split(text: str) -> tuple[str, str]:
    """The prose of a document, and the text of its code blocks, fenced or indented."""
    fenced = False
    prose = []
    block = []
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            block.append(line.strip())
        else:
            prose.append(line)
    return "\n".join(prose), "\n".join(block)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `document` runs once for each Markdown file."""
    if "document" in metafunc.fixturenames:
        names = [name for name in tracked() if name.endswith(".md")]
        metafunc.parametrize("document", [REPOSITORY / name for name in names], ids=names)


@pytest.fixture(scope="session")
def files() -> list[str]:
    return tracked()


@pytest.fixture
def prose(document: Path) -> str:
    """A document without its code blocks."""
    return split(document.read_text())[0]


@pytest.fixture
def commands(document: Path) -> list[str]:
    """Commands of a document's code blocks and spans: each starts with a program's name and has no comment."""
    prose, block = split(document.read_text())
    lines = [*block.replace("\\\n", " ").splitlines(), *re.findall(r"`([^`\n]+)`", prose)]
    lines = [line.removeprefix("$ ").partition(" #")[0] for line in lines]
    return [part.strip() for line in lines for part in re.split(r"&&|[|;]", line)]


@pytest.fixture(scope="session")
def tables() -> ModuleType:
    """The script that writes the tables, as a module."""
    spec = importlib.util.spec_from_file_location("docs_tables", Path(__file__).with_name("tables.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
