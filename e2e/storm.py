"""One seed of chaos: a namespace in bad weather, users at work in it, an operator that is killed in between.

All that happens is drawn from the seed, so that `make chaos SEEDS=7` runs it again. (When it happens is the machine's
affair: a seed that failed once may have to be run a few times.)
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from e2e.faults import Delay, Drop, Hang, LoseAnswer, Refuse, Rule
from e2e.rig import Rig

WRITES = ("create", "update", "patch", "delete")
WEATHER = (
    Rule(Refuse(429, retry_after=1), 0.3),
    Rule(Refuse(500), 0.4),
    Rule(Refuse(503), 0.4),
    Rule(Refuse(504), 0.2),
    Rule(Refuse(409), 0.5, verbs=WRITES),
    Rule(Drop(), 0.3),
    Rule(LoseAnswer(), 0.5, verbs=WRITES),
    Rule(Hang(1.0), 0.2),
    Rule(Delay(0.4), 0.6),
    Rule(Refuse(410), 0.5, verbs=("list", "watch")),
    Rule(Refuse(500), 0.8, resources=("inferenceservices/status",)),
)
NAMES = ("one", "two")
STEPS = 6
LONGEST_PAUSE = 0.6
CHILDREN = ("ServiceAccount", "Service", "Deployment", "PodDisruptionBudget")


class Storm:
    """`run` it once; `story` then says what happened, for whoever has to find out why."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.story: list[str] = []
        self._rig = rig
        self._chance = random.Random(seed)
        rig.proxy.chance = random.Random(seed)

    def run(self) -> float:
        """Raises AssertionError where it does not end well; returns the seconds from good weather to convergence."""
        rig = self._rig
        rules = self._chance.sample(WEATHER, self._chance.randint(1, 3))
        self.story += map(str, rules)
        rig.weather(*rules)
        for name in NAMES:
            rig.apply(name, replicas=self._chance.choice((0, 1)))
        steps = [self._kill, *self._chance.choices(self._steps(), k=STEPS - 1)]
        self._chance.shuffle(steps)
        for step in steps:
            time.sleep(self._chance.uniform(0.0, LONGEST_PAUSE))
            step()
        rig.weather()
        took = rig.converge()
        for name in NAMES:
            rig.delete("InferenceService", name)
        rig.vanish()
        return took

    def _steps(self) -> list[Callable[[], None]]:
        """What may happen; what is seldom or slow stands there once."""
        usual = [self._edit, self._scale, self._autoscale, self._delete_child, self._edit_child, self._replace]
        strikes = [self._kill, self._stop, self._pause, self._cut, self._expire, self._silence]
        return [*usual * 4, *strikes * 2, self._restart_api_server, self._stop_etcd]

    def _edit(self) -> None:
        self._tell(f"edit {(name := self._name())}")
        self._rig.edit(name, engine={"maxNumSeqs": self._chance.randint(1, 64)})

    def _scale(self) -> None:
        self._tell(f"scale {(name := self._name())}")
        self._rig.edit(name, replicas=self._chance.choice((0, 1)))

    def _autoscale(self) -> None:
        self._tell(f"autoscale {(name := self._name())}")
        wanted = self._chance.choice((None, {"maxReplicas": 2}, {"maxReplicas": 3}))
        self._rig.edit(name, autoscaling=wanted)

    def _delete_child(self) -> None:
        kind, name = self._chance.choice(CHILDREN), self._name()
        self._tell(f"delete {kind} {name}")
        self._rig.delete(kind, name)

    def _edit_child(self) -> None:
        name = self._name()
        kind, body = self._chance.choice(
            (
                ("Service", {"metadata": {"labels": {"app.kubernetes.io/part-of": "mine"}}}),
                ("Service", {"spec": {"selector": {"pagoda.dev/service": "mine"}}}),
                ("Deployment", {"spec": {"replicas": 1}}),
            )
        )
        self._tell(f"edit {kind} {name}")
        self._rig.patch(kind, name, body)

    def _replace(self) -> None:
        self._tell(f"delete {(name := self._name())} and make it anew")
        self._rig.delete("InferenceService", name)
        self._rig.apply(name)

    def _kill(self) -> None:
        self._tell("SIGKILL")
        self._rig.operator.send(signal.SIGKILL)

    def _stop(self) -> None:
        self._tell("SIGTERM")
        self._rig.operator.send(signal.SIGTERM)

    def _pause(self) -> None:
        self._tell("SIGSTOP")
        self._rig.operator.send(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.2, 1.5))
        self._rig.operator.send(signal.SIGCONT)

    def _cut(self) -> None:
        self._tell("cut the watches")
        self._rig.strike(self._rig.proxy.cut)

    def _expire(self) -> None:
        self._tell("expire the watches")
        self._rig.strike(self._rig.proxy.expire)

    def _silence(self) -> None:
        self._tell("silence the watches")
        self._rig.strike(self._rig.proxy.silence)

    def _restart_api_server(self) -> None:
        self._tell("restart the API server")
        self._rig.cluster.control_plane.restart_api_server()

    def _stop_etcd(self) -> None:
        self._tell("stop etcd for a while")
        with self._rig.cluster.control_plane.etcd_stopped():
            time.sleep(self._chance.uniform(0.5, 2.0))

    def _name(self) -> str:
        return self._chance.choice(NAMES)

    def _tell(self, step: str) -> None:
        self.story.append(step)
