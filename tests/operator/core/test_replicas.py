"""How many replicas the Deployment gets, in a table and in a long simulation of everybody who has a say."""

import random

import pytest

from pagoda_operator.core.pods import is_loading, is_ready
from pagoda_operator.core.replicas import Replicas, Standing, replicas


@pytest.mark.parametrize(
    ("asked", "most", "standing", "count"),
    [
        pytest.param(3, 5, None, 3, id="there is no Deployment yet"),
        pytest.param(3, 5, Standing(1, ready=1, placed=1), 3, id="more are asked for"),
        pytest.param(3, 5, Standing(1, loading=1, placed=1), 3, id="more, while one loads"),
        pytest.param(1, 5, Standing(3, ready=3, placed=3), 1, id="fewer, and nothing loads"),
        pytest.param(2, 5, Standing(3, ready=2, loading=1, placed=3), 3, id="fewer: the one that loads is kept"),
        pytest.param(1, 5, Standing(3, ready=1, loading=2, placed=3), 3, id="the same, and both are kept"),
        pytest.param(1, 5, Standing(3, ready=2, loading=1, placed=3), 1, id="fewer than are ready: nothing to keep"),
        pytest.param(0, 5, Standing(1, loading=1, placed=1), 1, id="to zero, while the first one loads"),
        pytest.param(0, 5, Standing(1, ready=1, placed=1), 0, id="to zero"),
        pytest.param(1, 5, Standing(4, ready=1, loading=1, placed=2), 2, id="those without a node are not kept"),
        pytest.param(1, 5, Standing(3, ready=1, placed=3), 1, id="two that are stuck are not kept"),
        pytest.param(1, 2, Standing(3, ready=1, loading=2, placed=3), 2, id="never above the most that there may be"),
        pytest.param(3, 2, Standing(4, ready=1, loading=3, placed=4), 3, id="nor is less given than is asked for"),
        pytest.param(
            1, 5, Standing(2, ready=1, loading=2, placed=3), 2, id="a surge pod of a roll-out is none to keep"
        ),
        pytest.param(1, None, Standing(3, ready=1, loading=2, placed=3), 1, id="what a user asks for comes at once"),
    ],
)
def test_the_replicas_of_a_deployment(asked, most, standing, count):
    assert replicas(asked, most, standing) == Replicas(count, asked)


def test_only_what_can_still_come_is_loading(make_pod):
    """A pod that waits for a node, that failed, that once was up, or that leaves, brings no capacity."""

    def loads(node="n", **status):
        pod = make_pod("p", "hf://a/b", **status)
        pod["spec"] = {"nodeName": node} if node else {}
        return is_loading(pod)

    failed = {"terminated": {"exitCode": 1}}
    assert loads()
    assert loads(initContainerStatuses=[{"name": "model", "state": {"running": {}}}])
    assert loads(containerStatuses=[{"name": "engine", "state": {"running": {}}, "started": False}])
    assert not loads(node=None)
    assert not loads(phase="Failed")
    assert not loads(containerStatuses=[{"name": "engine", "state": {"running": {}}, "started": True}])
    assert not loads(containerStatuses=[{"name": "engine", "state": {"waiting": {}}, "lastState": failed}])
    assert not loads(initContainerStatuses=[{"name": "model", "state": {"waiting": {"reason": "ErrImagePull"}}}])


def test_pods_that_have_ended_hold_no_place(make_pod):
    """An evicted pod stays as an object for days."""
    pods = [make_pod(f"p-{phase}", "hf://a/b", phase=phase) for phase in ("Running", "Failed")]
    for pod in pods:
        pod["spec"] = {"nodeName": "n"}
    assert Standing.of({"spec": {"replicas": 2}}, pods).placed == 1


class Play:
    """A scaler, the operator, a ReplicaSet, a scheduler with few places, and pods that load, fail and recover."""

    def __init__(self, seed):
        self.most = 6
        self.random = random.Random(seed)
        self.asked = 1
        self.deployment = {"spec": {"replicas": 1}}
        self.pods = []
        self.made = 0

    # --- the operator ------------------------------------------------------------------------------------------------

    def operate(self):
        """Decide and write. The promises are checked here, at every decision."""
        current = self.deployment["spec"]["replicas"]
        before = Standing.of(self.deployment, self.pods)
        decided = replicas(self.asked, self.most, before)
        assert decided.count >= self.asked, "never more removed than asked"
        assert decided.count <= max(self.most, self.asked)
        assert decided.count <= max(current, self.asked), "what nobody asks for is kept, not made"
        assert decided.count <= max(before.placed, self.asked), "what has no node is not worth a wait"
        assert decided.count == self.asked or self.asked >= before.ready, "enough are ready: nothing is worth a wait"
        self.deployment["spec"]["replicas"] = decided.count
        loading = [pod for pod in self.pods if is_loading(pod)]
        self.replica_set()
        killed = [pod for pod in loading if pod not in self.pods]
        enough = self.asked < before.ready or self.most < before.placed
        assert not killed or enough, (
            "a replica that loads is given up only where enough are ready, or too many are there"
        )
        again = replicas(self.asked, self.most, Standing.of(self.deployment, self.pods))
        assert again.count <= decided.count, "to look again never brings back what was let go"

    # --- Kubernetes --------------------------------------------------------------------------------------------------

    def replica_set(self):
        """As ActivePodsWithRanks.Less: no node, then Pending, then not ready, then the cost, then the newest."""
        wanted = self.deployment["spec"]["replicas"]
        phases = ["Pending", "Unknown", "Running"]
        ranked = sorted(
            self.pods,
            key=lambda pod: (
                "nodeName" in pod["spec"],
                phases.index(pod["status"]["phase"]),
                is_ready(pod),
                -pod["made"],
            ),
        )
        for pod in ranked[: max(0, len(ranked) - wanted)]:
            self.pods.remove(pod)
        while len(self.pods) < wanted:
            self.made += 1
            self.pods.append({"made": self.made, "metadata": {"name": f"p-{self.made}"}, "spec": {}, "status": {}})
            self.pods[-1]["status"] = {"phase": "Pending", "conditions": []}

    def step(self):
        """Something happens to somebody."""
        if self.random.random() < 0.05:
            self.most = self.random.randint(1, 6)
        if self.random.random() < 0.25:
            self.asked = self.random.randint(0, self.most)
        if not self.pods:
            return
        pod = self.random.choice(self.pods)
        status, happens = pod["status"], self.random.random()
        if "nodeName" not in pod["spec"]:
            if sum("nodeName" in other["spec"] for other in self.pods) < 4:
                pod["spec"]["nodeName"] = "n"
        elif status["phase"] == "Pending":
            status["phase"] = "Running"
        elif happens < 0.6:
            self.engine(pod, ready=True, started=True)
        elif happens < 0.8:
            self.engine(pod, ready=False, started=True)
        else:
            self.engine(pod, ready=False, started=False, lastState={"terminated": {"exitCode": 1}})

    def engine(self, pod, *, ready, **state):
        pod["status"]["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
        pod["status"]["containerStatuses"] = [{"name": "engine", "state": {"running": {}}, **state}]

    def settle(self):
        """Whatever loads comes up."""
        for pod in self.pods:
            if is_loading(pod):
                self.engine(pod, ready=True, started=True)
                pod["status"]["phase"] = "Running"


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_promises_hold(seed):
    """Every decision of a long life is checked; and when nothing loads any more, there is exactly what is asked for."""
    play = Play(seed)
    held = 0
    for _ in range(500):
        play.step()
        play.operate()
        held += play.deployment["spec"]["replicas"] > play.asked
    assert held, "the simulation meets what it is about"
    play.settle()
    play.operate()
    assert play.deployment["spec"]["replicas"] == play.asked
