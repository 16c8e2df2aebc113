"""The one cluster of a run, its end, and what is told of it.

Where something that the harness needs can't be had, every scenario is skipped with the exact reason.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Generator, Iterator

import pytest
from e2e import binaries, cluster, diagnosis, machine, network, tiny_model
from e2e.control_plane import HPA_SYNC
from e2e.hub import ModelHub
from e2e.monitoring import Prometheus
from e2e.nodes import Machine
from e2e.release import Release, namespace
from e2e.resources import MemoryMeter, still_running
from e2e.services import Services

NODES = (Machine("cpu-1"), Machine("cpu-2"))

METER = pytest.StashKey[MemoryMeter]()
STARTED = pytest.StashKey[float]()
INSTALLED = pytest.StashKey[float]()
MEASURED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", default="0-9", help="seeds of chaos to run: `7`, or `0-99`")
    parser.addoption("--hpa-sync", default=HPA_SYNC, help="how often the HPA controller looks; by default it is 15s")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first, _, last = str(metafunc.config.getoption("seeds")).partition("-")
        metafunc.parametrize("seed", range(int(first), int(last or first) + 1))


def pytest_configure(config: pytest.Config) -> None:
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.stash[METER] = MemoryMeter()
    config.stash[MEASURED] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[METER].stop()


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> binaries.Binaries:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            machine.check()
            return binaries.find(lambda line: print(f"\ne2e: {line}", flush=True))
        except binaries.Missing as missing:
            pytest.skip(f"NO CLUSTER: {missing}")


@pytest.fixture(scope="session")
def bare_cluster(programs: binaries.Binaries, request: pytest.FixtureRequest) -> Iterator[cluster.Cluster]:
    """Control plane and nodes, without Pagoda."""
    start = time.monotonic()
    running = cluster.Cluster(programs, request.config.getoption("--hpa-sync"))
    try:
        for one in NODES:
            running.add_node(one)
        request.config.stash[STARTED] = time.monotonic() - start
        yield running
        running.check()
    finally:
        running.close()


@pytest.fixture(scope="session")
def hub(bare_cluster: cluster.Cluster) -> Iterator[ModelHub]:
    """A Hugging Face hub that pods can reach, with one tiny random model."""
    folder = bare_cluster.folder / "hub"
    tiny_model.write(folder / "tests" / "tiny")
    with ModelHub(folder, host=bare_cluster.network.gateway) as running:
        yield running


@pytest.fixture(scope="session")
def release(bare_cluster: cluster.Cluster, hub: ModelHub, request: pytest.FixtureRequest) -> Release:
    """Pagoda, installed by its chart."""
    start = time.monotonic()
    installed = Release(bare_cluster, hub.url)
    installed.install()
    request.config.stash[INSTALLED] = time.monotonic() - start
    return installed


@pytest.fixture(scope="session")
def prometheus(bare_cluster: cluster.Cluster) -> Prometheus:
    """What scrapes engines and operator, at `monitoring.ADDRESS` for pods."""
    return Prometheus(bare_cluster)


@pytest.fixture(scope="module")
def unattended(release: Release) -> Iterator[Release]:
    """The CRD without an operator, for tests that write into its objects themselves or bring their own."""
    release.scale(0)
    yield release
    release.scale(1)


@pytest.fixture
def services(bare_cluster: cluster.Cluster, release: Release, request: pytest.FixtureRequest) -> Iterator[Services]:
    """A namespace of the test's own, under the `restricted` Pod Security Standard.

    It goes with all that is in it, while the next test runs already.
    """
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:50].strip("-")
    bare_cluster.apply(namespace(name))
    yield Services(bare_cluster, name)
    diagnosis.tell_if_failed(request.node, bare_cluster, name, release)
    bare_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line for the end of the run's report."""
    return request.config.stash[MEASURED].append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[diagnosis.FAILED] = report.failed
    return report


@pytest.hookimpl(trylast=True)  # an interrupted run tears its fixtures down in pytest's own hook
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves something behind has failed, whatever its tests say."""
    left = [f"process {line}" for line in still_running()]
    left += [f"bridge {name}" for name in _own_bridges()]
    left += [f"folder {path}" for path in cluster.left_behind(os.getpid())]
    if left:
        session.config.get_terminal_writer().line("\ne2e left behind: " + "; ".join(left), red=True)
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    peak = config.stash[METER].peak / 2**30
    started = config.stash.get(STARTED, None)
    lines = [] if started is None else [f"control plane and nodes ready in {started:.1f} s"]
    if (seconds := config.stash.get(INSTALLED, None)) is not None:
        lines.append(f"chart installed and operator ready in {seconds:.1f} s")
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    lines += [f"{report.duration:6.1f} s  {report.nodeid}" for report in reports if report.when == "call"]
    terminalreporter.section("e2e: time and memory")
    for line in [*lines, *config.stash[MEASURED], f"peak memory of all processes: {peak:.1f} GiB"]:
        terminalreporter.line(line)


def _own_bridges() -> list[str]:
    try:
        machine.check()
    except binaries.Missing:
        return []
    return [name for name in network.bridges() if name == f"{network.PREFIX}{os.getpid()}"]
