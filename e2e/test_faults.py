"""Whatever happens between the operator and the API server, and to either of them, the specs win in the end.

After each fault: spec, children and status agree, nothing is left over, nothing is stuck, and while it lasted the
status said what could be said. The pods of these services fit no node: what is proven here is the operator, in seconds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e import machine
from e2e.api import Object
from e2e.cluster import Cluster
from e2e.faults import Delay, Drop, Fault, Hang, LoseAnswer, Refuse, Rule
from e2e.hub import ModelHub
from e2e.operator_process import OperatorProcess
from e2e.release import NAMESPACE, Release
from e2e.rig import Rig
from e2e.storm import CHILDREN, WRITES

from pagoda_engine.contract import ExitCode
from pagoda_operator.commands.operator import LEASE_NAME

OUTAGE_SECONDS = 3.0
READS = ("list", "watch")
LEASE = ("--leader-elect", "--lease-namespace", NAMESPACE)

FAULTS: tuple[Fault, ...] = (
    Refuse(429, retry_after=1),
    Refuse(500),
    Refuse(503),
    Refuse(504),
    Refuse(401),
    Drop(),
    Hang(2.0),
    Delay(1.0),
)


@pytest.fixture(scope="module")
def rig(bare_cluster: Cluster, unattended: Release, hub: ModelHub) -> Iterator[Rig]:
    with Rig(bare_cluster, unattended, hub.url, "faults") as ready:
        yield ready


@pytest.fixture(scope="module")
def quiet(bare_cluster: Cluster, unattended: Release, hub: ModelHub) -> Iterator[Rig]:
    """A rig of its own whose watches have fallen silent, with something to do; the other tests give it time."""
    with Rig(bare_cluster, unattended, hub.url, "quiet") as ready:
        ready.apply("tiny", replicas=1)
        ready.converge()
        ready.strike(ready.proxy.silence)
        disturb(ready)
        yield ready


@pytest.fixture
def settled(rig: Rig) -> Iterator[Rig]:
    """The rig with one service that is as it should be; none of it is left afterwards."""
    rig.weather()
    rig.apply("tiny", replicas=1)
    rig.converge()
    yield rig
    rig.weather()
    rig.delete("InferenceService", "tiny")
    rig.vanish()


def disturb(rig: Rig) -> None:
    """What gives the operator something to write: an edit, a child that is gone, and one that is not as it was."""
    rig.edit("tiny", engine={"maxNumSeqs": 3}, replicas=0, autoscaling={"maxReplicas": 2})
    rig.delete("Service", "tiny")
    rig.patch("PodDisruptionBudget", "tiny", {"spec": {"maxUnavailable": None, "minAvailable": 7}})


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_an_api_server_that_answers_nothing_useful(settled: Rig, fault: Fault) -> None:
    """Every call goes wrong for a while, watches that are opened too; the work is done as soon as one goes well."""
    settled.weather(Rule(fault))
    disturb(settled)
    settled.until_struck(3, WRITES)
    settled.strike(settled.proxy.cut)
    settled.until_struck(3, READS)
    settled.weather()
    settled.converge(seconds=30)


def test_answers_that_get_lost(settled: Rig) -> None:
    """A write that was done without our knowing is not done twice, nor taken for somebody else's."""
    settled.weather(Rule(LoseAnswer(), verbs=WRITES))
    disturb(settled)
    settled.until_struck(5, WRITES)
    settled.weather()
    settled.converge(seconds=30)


def test_a_storm_of_conflicts(settled: Rig) -> None:
    """Races that the API server loses with itself: nothing was written, whatever it says of the object."""
    settled.weather(Rule(Refuse(409), rate=0.7, verbs=WRITES))
    disturb(settled)
    settled.until_struck(3, WRITES)
    settled.edit("tiny", autoscaling=None)
    settled.converge()


@pytest.mark.parametrize("blow", ["cut", "expire"])
def test_what_no_watch_can_tell(settled: Rig, blow: str) -> None:
    """Watches end while services and children come and go, and can't be opened again before it is over."""
    settled.apply("other")
    settled.converge()
    settled.weather(Rule(Refuse(503), verbs=("list", "watch")))
    settled.strike(getattr(settled.proxy, blow))
    disturb(settled)
    settled.delete("InferenceService", "other")
    settled.until_struck(3, READS)
    settled.weather()
    settled.converge(seconds=30)


def test_the_api_server_restarts(settled: Rig) -> None:
    settled.apply("other", replicas=1)
    settled.cluster.control_plane.restart_api_server()
    disturb(settled)
    settled.converge(seconds=120)  # other controllers have to find back too
    settled.delete("InferenceService", "other")


def test_etcd_does_not_answer(settled: Rig) -> None:
    """Reads are answered from the API server's memory, writes are not; the operator neither dies nor forgets."""
    exits = len(settled.operator.exits)
    settled.edit("tiny", engine={"maxNumSeqs": 3})
    with settled.cluster.control_plane.etcd_stopped():
        time.sleep(OUTAGE_SECONDS)
    disturb(settled)
    settled.converge()
    assert len(settled.operator.exits) == exits


def test_a_garbage_collector_that_is_away(settled: Rig) -> None:
    """What is left of a service holds its GPUs and its names: the operator deletes it, if nobody else does."""
    settled.apply("other")
    settled.converge()
    with settled.cluster.control_plane.controllers_stopped():
        settled.delete("InferenceService", "other")
        settled.cluster.eventually(
            lambda: not any(settled.get(kind, "other") for kind in CHILDREN), "nothing of it is left", seconds=60
        )
    settled.converge()


def test_a_namespace_that_goes_in_the_middle(rig: Rig) -> None:
    """Nothing that the operator does keeps a namespace from going, and it goes on serving when it is back."""
    rig.apply("tiny", replicas=1)
    rig.cluster.eventually(lambda: rig.get("Service", "tiny"), "the first children are there")
    rig.cluster.kubectl("delete", "namespace", rig.name, "--timeout=60s")
    rig.make_namespace()
    rig.apply("tiny")
    rig.converge()
    rig.delete("InferenceService", "tiny")
    rig.vanish()


def test_of_two_operators_one_leads(bare_cluster: Cluster, unattended: Release, hub: ModelHub) -> None:
    """A third one, two hours ahead, left its Lease; then the leader falls asleep, and wakes too late."""
    bare_cluster.apply(left_lease())
    with Rig(bare_cluster, unattended, hub.url, "pair", *LEASE) as pair:
        both = (pair.operator, pair.second_operator())

        def leaders() -> list[OperatorProcess]:
            return [one for one in both if bare_cluster.run(one.metric("leader_election_master_status"))]

        (first,) = bare_cluster.eventually(leaders, "one leads")
        (second,) = (one for one in both if one is not first)
        pair.apply("tiny", replicas=1)
        pair.converge()
        assert leaders() == [first]
        first.send(signal.SIGSTOP)
        disturb(pair)
        pair.converge()
        assert leaders() == [second]
        first.send(signal.SIGCONT)
        bare_cluster.eventually(lambda: first.exits, "the former leader ended")
        assert first.exits == [ExitCode.CRASHED]
        pair.delete("Service", "tiny")
        pair.converge()
        assert leaders() == [second]


def left_lease() -> Object:
    times = dict.fromkeys(("acquireTime", "renewTime"), f"{datetime.now(UTC) + timedelta(hours=2):%FT%T.%fZ}")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE_NAME, "namespace": NAMESPACE},
        "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 3, "leaseTransitions": 7, **times},
    }


def test_a_clock_that_is_wrong(bare_cluster: Cluster, unattended: Release, hub: ModelHub) -> None:
    """An operator two hours ahead of the API server does the same as any other."""
    machine.install({"faketime": "faketime"})
    if (library := next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)) is None:
        pytest.skip("NO SKEW: libfaketime is not here (`apt-get install faketime`)")
    skew = {"LD_PRELOAD": str(library), "FAKETIME": "+2h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with Rig(bare_cluster, unattended, hub.url, "skewed", environment=skew) as skewed:
        skewed.apply("tiny", replicas=1)
        skewed.converge()
        ahead = datetime.fromisoformat(skewed.ready("tiny")["lastTransitionTime"]) - datetime.now(UTC)
        assert ahead > timedelta(hours=1), "its clock is wrong indeed"
        disturb(skewed)
        skewed.converge()


def test_watches_that_fell_silent(quiet: Rig) -> None:
    """Given up after 70 s, since an API server is never so long without a bookmark; or by a sweep that comes earlier,
    finds what they have not told, and ends the process."""
    quiet.converge(seconds=120)
    assert quiet.operator.exits in ([], [ExitCode.CRASHED])
