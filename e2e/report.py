"""What a run tells at its end: how long, how much memory, what was measured, and what it has left behind.

The scenarios of one run may be spread over processes of pytest-xdist; each has a cluster of its own, and hands what it
has to tell to the one that started them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from e2e import binaries, cluster, machine, network
from e2e.resources import MemoryMeter, still_running
from xdist import is_xdist_controller, is_xdist_worker
from xdist.workermanage import WorkerController

HANDED_OVER = "pagoda-e2e"


@dataclass(slots=True)
class Report:
    """A plugin of pytest. Scenarios and fixtures add to `lines`."""

    lines: list[str] = field(default_factory=list)
    _left: list[str] = field(default_factory=list)
    _meter: MemoryMeter | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if not is_xdist_worker(session):  # whose memory is counted by its parent
            self._meter = MemoryMeter()

    @pytest.hookimpl(trylast=True)  # an interrupted run tears its fixtures down in pytest's own hook
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A run that leaves something behind has failed, whatever its tests say."""
        if not is_xdist_controller(session):
            self._left += _left_behind()
        if is_xdist_worker(session):
            output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]  # xdist's addition
            output[HANDED_OVER] = (self.lines, self._left)
        elif self._left:
            session.config.get_terminal_writer().line("\ne2e left behind: " + "; ".join(self._left), red=True)
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_testnodedown(self, node: WorkerController) -> None:
        """Take over what a worker tells at its end; one that crashed tells nothing, and fails the run by that."""
        lines, left = getattr(node, "workeroutput", {}).get(HANDED_OVER, ((), ()))
        self.lines += lines
        self._left += left

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
        times = [f"{report.duration:6.1f} s  {report.nodeid}" for report in reports if report.when == "call"]
        peak = self._meter.peak / 2**30 if self._meter else 0
        terminalreporter.section("e2e: time and memory")
        for line in [*times, *self.lines, f"peak memory of all processes: {peak:.1f} GiB"]:
            terminalreporter.line(line)

    def pytest_unconfigure(self) -> None:
        if self._meter is not None:
            self._meter.stop()


def _left_behind() -> list[str]:
    left = [f"process {line}" for line in still_running()]
    left += [f"bridge {name}" for name in _own_bridges()]
    return left + [f"folder {path}" for path in cluster.left_behind(os.getpid())]


def _own_bridges() -> list[str]:
    try:
        machine.check()
    except binaries.Missing:
        return []
    return [name for name in network.bridges() if name == f"{network.PREFIX}{os.getpid()}"]
