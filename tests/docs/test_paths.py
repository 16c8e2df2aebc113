"""Trees and paths that the documentation shows are those of the repository."""

from __future__ import annotations

import fnmatch
import re
from itertools import chain, takewhile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TREE = re.compile(r"^<!-- tree: (?P<root>\S+) -->\n+(?:```\w*\n)?(?P<lines>(?: *\S.*\n)+?)(?=```|\n|\Z)", re.MULTILINE)
PATH = re.compile(r"[\w.-]+(/[\w.*-]+)*(\.(py|md|yaml|toml|lock|json|tpl)|/)")
PLAIN = {"__init__.py", "README.md", "LICENSE"}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)")


def parse(lines: str) -> dict[str, list[str]]:
    """{folder: names shown in it} of an indented tree, two spaces a level; the root is ''.

    A line begins with a name, or with several that look like files; folders end with a slash. What follows is prose,
    and so is a line that is indented so far that it goes on with the prose above.
    """
    rows = [(len(line) - len(line.lstrip()), line.split()) for line in lines.splitlines()]
    base = rows[0][0]
    shown: dict[str, list[str]] = {"": []}
    parents: list[str] = []
    for indent, words in rows:
        level = (indent - base) // 2
        if level > len(parents):
            continue
        del parents[level:]
        names = [words[0], *takewhile(PATH.fullmatch, words[1:])]
        shown.setdefault("".join(parents), []).extend(names)
        if names[-1].endswith("/"):
            parents.append(names[-1])
    return shown


def entries(files: list[str], folder: str) -> set[str]:
    """What a folder holds, hidden files apart; folders end with a slash."""
    prefix = "" if folder in (".", "./") else folder.rstrip("/") + "/"
    inside = (name.removeprefix(prefix) for name in files if name.startswith(prefix))
    names = {name.partition("/")[0] + ("/" if "/" in name else "") for name in inside}
    return {name for name in names if not name.startswith(".")}


def test_trees_are_the_repositorys(document, files):
    """Each folder that a tree opens shows all that is in it, and nothing else; names may be patterns.

    What says by its name what it is may be left out.
    """
    text = document.read_text()
    trees = list(TREE.finditer(text))
    assert len(trees) == len(re.findall(r"^<!-- tree: ", text, re.MULTILINE)), "a tree's mark has no block below it"
    for match in trees:
        for folder, shown in parse(match["lines"]).items():
            place = folder if match["root"] == "." else f"{match['root'].rstrip('/')}/{folder}"
            real = entries(files, place or ".")
            wanted = [name for name in shown if not name.startswith(".")]
            missing = {name for name in real - PLAIN if not any(fnmatch.fnmatch(name, pattern) for pattern in wanted)}
            invented = {pattern for pattern in wanted if not fnmatch.filter(real, pattern)}
            assert not missing, f"the tree of {place or 'the repository'} lacks {sorted(missing)}"
            assert not invented, f"the tree of {place or 'the repository'} shows {sorted(invented)}, which is not there"


def test_a_tree_is_read_as_it_is_meant():
    """Levels by indentation; prose that goes on is no entry."""
    text = "    a/      one\n      b.py x.py  two,\n            and more\n      c/\n        d.py\n    e.py\n"
    assert parse(text) == {"": ["a/", "e.py"], "a/": ["b.py", "x.py", "c/"], "a/c/": ["d.py"]}


def test_paths_exist(document, prose):
    """Every path in a code span or a link leads somewhere: from the repository, the document, or a tree in it.

    A name without a folder may stand for a file anywhere in such a tree.
    """
    trees = [REPOSITORY / match["root"] for match in TREE.finditer(document.read_text())]
    spans = [span for span in re.findall(r"`([^`\n]+)`", prose) if PATH.fullmatch(span)]
    for path in [*spans, *LINK.findall(prose)]:
        places = [root.glob(path.rstrip("/")) for root in (REPOSITORY, document.parent, *trees)]
        if "/" not in path:
            places += [tree.rglob(path) for tree in trees]
        assert any(chain.from_iterable(places)), f"`{path}` is not there"
