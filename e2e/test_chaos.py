"""The faults of `test_faults.py` all at once, as a seed draws them; `make chaos` draws a hundred."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from e2e.cluster import Cluster
from e2e.hub import ModelHub
from e2e.release import Release
from e2e.rig import Rig
from e2e.storm import Storm


@pytest.fixture(scope="module")
def rig(bare_cluster: Cluster, unattended: Release, hub: ModelHub) -> Iterator[Rig]:
    with Rig(bare_cluster, unattended, hub.url, "chaos") as ready:
        yield ready


@pytest.mark.timeout(240)
def test_chaos(rig: Rig, seed: int, measured: Callable[[str], None]) -> None:
    """Whatever happens while the operator is killed at random moments, the specs win in the end.

    `make chaos SEEDS=7` runs that one again.
    """
    storm = Storm(rig, seed)
    try:
        measured(f"chaos, seed {seed}: converged {storm.run():.1f} s after the weather had cleared")
    finally:
        print(f"seed {seed}: {'; '.join(storm.story)}")
        rig.weather()
        rig.operator.send(signal.SIGCONT)
