"""Steps of a rolling update, played through with pods that become ready in any order."""

import copy
import random

import pytest

from pagoda_operator.local.rollout import Rollout


def deployment(replicas: int, image: str = "a", **rolling) -> dict:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "namespace": "default", "uid": "u", "generation": 1},
        "spec": {
            "replicas": replicas,
            "template": template,
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0, **rolling}},
        },
    }


class Play:
    """Pods of a Deployment; each step is carried out at once, and pods become ready when told."""

    def __init__(self, spec: dict) -> None:
        self.deployment = spec
        self.pods: list[dict] = []
        self._made = 0

    def step(self) -> None:
        rollout = Rollout.of(self.deployment, self.pods)
        step = rollout.step()
        for _ in range(step.create):
            self._made += 1
            pod = copy.deepcopy(rollout.pod("n"))
            pod["metadata"] |= {"creationTimestamp": f"2026-01-01T00:{self._made // 60:02}:{self._made % 60:02}Z"}
            self.pods.append(pod)
        self.pods = [pod for pod in self.pods if pod not in step.delete]

    def settle(self) -> None:
        """Step, and let what was made become ready, until nothing changes."""
        for _ in range(100):
            before = copy.deepcopy(self.pods)
            self.step()
            for pod in self.pods:
                self.set_ready(pod)
            if self.pods == before:
                return
        raise AssertionError("it never settles")

    def set_ready(self, pod: dict, ready: bool = True) -> None:
        pod["status"] = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}

    def ready(self) -> int:
        return sum(1 for pod in self.pods if "status" in pod and pod["status"]["conditions"][0]["status"] == "True")

    def images(self) -> list[str]:
        return [pod["spec"]["containers"][0]["image"] for pod in self.pods]


@pytest.mark.parametrize("seed", range(20))
def test_update_never_has_fewer_ready_pods_than_wanted_nor_more_than_one_extra(seed):
    chance = random.Random(seed)
    play = Play(deployment(chance.randint(1, 5)))
    play.settle()
    wanted = play.deployment["spec"]["replicas"]
    play.deployment = deployment(wanted, image="b")
    for _ in range(200):
        play.step()
        assert play.ready() >= wanted
        assert len(play.pods) <= wanted + 1
        waiting = [pod for pod in play.pods if "status" not in pod]
        if waiting and chance.random() < 0.5:
            play.set_ready(chance.choice(waiting))
    assert play.images() == ["b"] * wanted


@pytest.mark.parametrize("seed", range(20))
def test_any_row_of_edits_and_crashes_ends_with_the_last_spec(seed):
    chance = random.Random(seed)
    play = Play(deployment(2))
    for _ in range(30):
        play.deployment = deployment(chance.randint(0, 4), image=chance.choice("abc"))
        for _ in range(chance.randint(0, 4)):
            play.step()
            for pod in play.pods:
                play.set_ready(pod, chance.random() < 0.7)
    play.settle()
    spec = play.deployment["spec"]
    assert play.images() == [spec["template"]["spec"]["containers"][0]["image"]] * spec["replicas"]


def test_broken_new_template_leaves_the_old_pods_serving():
    play = Play(deployment(2))
    play.settle()
    play.deployment = deployment(2, image="broken")
    for _ in range(10):
        play.step()
    assert sorted(play.images()) == ["a", "a", "broken"]
    assert play.ready() == 2


def test_scale_down_gives_up_the_unready_first_then_the_newest():
    play = Play(deployment(4))
    play.settle()
    oldest, second, third, _newest = play.pods
    play.set_ready(second, False)
    play.deployment = deployment(2)
    play.step()
    assert play.pods == [oldest, third]


def test_scale_to_zero_and_back():
    play = Play(deployment(2))
    play.settle()
    play.deployment = deployment(0)
    play.settle()
    assert play.pods == []
    play.deployment = deployment(1)
    play.settle()
    assert len(play.pods) == 1


def test_pods_on_their_way_out_do_not_count():
    play = Play(deployment(1))
    play.settle()
    play.pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert Rollout.of(play.deployment, play.pods).step().create == 1


def test_max_unavailable_lets_an_old_pod_go_first():
    play = Play(deployment(2, maxSurge=0, maxUnavailable=1))
    play.settle()
    play.deployment = deployment(2, image="b", maxSurge=0, maxUnavailable=1)
    play.step()
    assert play.images() == ["a"]
    play.settle()
    assert play.images() == ["b", "b"]


def test_status_counts_as_kubernetes_does():
    play = Play(deployment(2))
    play.step()
    play.set_ready(play.pods[0])
    status = Rollout.of(play.deployment, play.pods).status("2026-01-01T00:00:00Z")
    counts = {name: value for name, value in status.items() if name != "conditions"}
    assert counts == {
        "observedGeneration": 1,
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 1,
        "availableReplicas": 1,
        "unavailableReplicas": 1,
    }
    available, progressing = status["conditions"]
    assert (available["status"], available["reason"]) == ("False", "MinimumReplicasUnavailable")
    assert (progressing["status"], progressing["reason"]) == ("True", "ReplicaSetUpdated")


def test_conditions_keep_their_time_until_they_turn():
    play = Play(deployment(1))
    play.settle()
    first = Rollout.of(play.deployment, play.pods).status("2026-01-01T00:00:00Z")
    play.deployment = {**play.deployment, "status": first}
    assert Rollout.of(play.deployment, play.pods).status("2026-02-02T00:00:00Z") == first
    play.set_ready(play.pods[0], False)
    later = Rollout.of(play.deployment, play.pods).status("2026-02-02T00:00:00Z")
    assert [c["lastTransitionTime"][:7] for c in later["conditions"]] == ["2026-02", "2026-01"]
