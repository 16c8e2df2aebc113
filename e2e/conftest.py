"""The cluster of a run, its end, and what is told of it; of a run in several processes each has one of its own.

Where something that the harness needs can't be had, every scenario is skipped with the exact reason.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Generator, Iterator

import pytest
from e2e import binaries, cluster, diagnosis, machine, tiny_model
from e2e.control_plane import HPA_SYNC
from e2e.hub import ModelHub
from e2e.monitoring import Prometheus
from e2e.nodes import Machine
from e2e.release import Release, namespace
from e2e.report import Report
from e2e.schedule import Schedule, longest_first
from e2e.services import Services
from xdist.remote import Producer

NODES = (Machine("cpu-1"), Machine("cpu-2"))

REPORT = pytest.StashKey[Report]()


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
    config.stash[REPORT] = Report()
    config.pluginmanager.register(config.stash[REPORT])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = longest_first(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Schedule:
    return Schedule(config, log)


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line for the end of the run's report."""
    return request.config.stash[REPORT].lines.append


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
def bare_cluster(
    programs: binaries.Binaries, request: pytest.FixtureRequest, measured: Callable[[str], None]
) -> Iterator[cluster.Cluster]:
    """Control plane and nodes, without Pagoda."""
    start = time.monotonic()
    running = cluster.Cluster(programs, request.config.getoption("--hpa-sync"))
    try:
        for one in NODES:
            running.add_node(one)
        measured(f"control plane and nodes ready in {time.monotonic() - start:.1f} s")
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
def release(bare_cluster: cluster.Cluster, hub: ModelHub, measured: Callable[[str], None]) -> Release:
    """Pagoda, installed by its chart."""
    start = time.monotonic()
    installed = Release(bare_cluster, hub.url)
    installed.install()
    measured(f"chart installed and operator ready in {time.monotonic() - start:.1f} s")
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
    bare_cluster.make_namespace(namespace(name))
    yield Services(bare_cluster, name)
    diagnosis.tell_if_failed(request.node, bare_cluster, name, release)
    bare_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[diagnosis.FAILED] = report.failed
    return report
