"""Which scenarios come first, and which never side by side, where several processes share a run.

A file stays together, since its scenarios share what is slow to start. Most of them wait most of the time, for probes,
windows and grace periods, so two at once take little longer than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from xdist.scheduler import LoadFileScheduling

LONGEST: Final = (
    "test_steady.py",
    "test_autoscaling_keda.py",
    "test_autoscaling_hpa.py",
    "test_faults.py",
    "test_gpu_rollout.py",
    "test_least_privilege.py",
    "test_repair.py",
    "test_rollout.py",
    "test_scaling.py",
    "test_upgrade.py",
)
"""Those of half a minute and more, the longest first: the short ones and the seeds of chaos then fill up the end."""
HUNGRY: Final = ("test_steady", "test_autoscaling_")
"""What these names begin with takes all the processor that there is: twenty engines start, or some are kept busy."""
SEPARATE: Final = "test_chaos.py"
"""Each of its tests may run anywhere: there may be a hundred, and they share no more than an operator."""


class Schedule(LoadFileScheduling):
    """A file at a time for each process; the hungry ones one after the other, seeds of chaos wherever there is time."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        name = Path(file).name
        if name == SEPARATE:
            return nodeid
        return "hungry" if name.startswith(HUNGRY) else file


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The scenarios in the order in which files are handed out; within a file it is theirs."""
    others = len(LONGEST)
    rank = {name: number for number, name in enumerate(LONGEST)} | {SEPARATE: others + 1}
    return sorted(items, key=lambda item: rank.get(item.path.name, others))
