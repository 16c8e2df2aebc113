"""The one cluster of a run, its end, and what is told of it.

Where something that the harness needs can't be had, every scenario is skipped with the exact reason.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from e2e import binaries, cluster, machine, network
from e2e.nodes import H100, Machine
from e2e.resources import MemoryMeter, descendants

NODES = (Machine("cpu-1"), Machine("gpu-1", gpu=H100, gpus=8))

METER = pytest.StashKey[MemoryMeter]()
STARTED = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.stash[METER] = MemoryMeter()


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
    running = cluster.Cluster(programs)
    try:
        for one in NODES:
            running.add_node(one)
        request.config.stash[STARTED] = time.monotonic() - start
        yield running
    finally:
        running.close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves something behind has failed, whatever its tests say."""
    left = [f"process {p.pid}: {' '.join(p.cmdline())[:120]}" for p in descendants() if p.is_running()]
    left += [f"bridge {name}" for name in _own_bridges()]
    left += [f"folder {path}" for path in cluster.left_behind(os.getpid())]
    if left:
        session.config.get_terminal_writer().line("\ne2e left behind: " + "; ".join(left), red=True)
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    peak = config.stash[METER].peak / 2**30
    started = config.stash.get(STARTED, None)
    lines = [] if started is None else [f"control plane and nodes ready in {started:.1f} s"]
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    lines += [f"{report.duration:6.1f} s  {report.nodeid}" for report in reports if report.when == "call"]
    terminalreporter.section("e2e: time and memory")
    for line in [*lines, f"peak memory of all processes: {peak:.1f} GiB"]:
        terminalreporter.line(line)


def _own_bridges() -> list[str]:
    try:
        machine.check()
    except binaries.Missing:
        return []
    return [name for name in network.bridges() if name == f"{network.PREFIX}{os.getpid()}"]
