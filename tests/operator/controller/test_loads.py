"""What scalers are told of a service's load, and when it is better to tell them nothing."""

import asyncio

import pytest

from pagoda_operator.cluster.resources import INFERENCE_SERVICE, POD
from pagoda_operator.controller.loads import ServiceLoads
from pagoda_operator.controller.metrics import OperatorMetrics
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.store import Store
from pagoda_operator.scaling.load import HOLD_SECONDS, Load

KEY = ServiceKey("default", "qwen")
SERVICE = {"metadata": {"namespace": "default", "name": "qwen", "uid": "u", "resourceVersion": "1"}, "spec": {}}


def pod(name, *, ready=True, started=True, leaving=False):
    metadata = {"namespace": "default", "name": name, "uid": name, "resourceVersion": "1"}
    metadata |= {"labels": {"pagoda.dev/service": "qwen"}}
    metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}
    return {
        "metadata": metadata,
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "engine", "started": started}],
        },
    }


class Case:
    """Loads over a store with one service and these pods."""

    def __init__(self, *pods, known=True):
        self.store = Store()
        self.loads = ServiceLoads(self.store)
        self.loads.begin(frozenset())
        if known:
            self.store.put(INFERENCE_SERVICE, SERVICE)
        for each in pods:
            self.store.put(POD, each)

    def heard(self, **loads):
        for name, (waiting, running) in loads.items():
            self.loads.heard(KEY, name, Load(waiting, running), stands=10)
        return self

    def silent(self, *names):
        for name in names:
            self.loads.silent(name)
        return self

    @property
    def load(self):
        return self.loads.of(*KEY)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(lambda: Case(known=False), None, id="no such service"),
        pytest.param(lambda: Case(), Load(0, 0), id="no replica: nothing runs"),
        pytest.param(lambda: Case(pod("a", ready=False, started=False)), Load(0, 0), id="the first one loads"),
        pytest.param(lambda: Case(pod("a")), Load(0, 0), id="just ready, and asked in a moment"),
        pytest.param(lambda: Case(pod("a")).silent("a"), None, id="it serves, and nobody knows how much"),
        pytest.param(lambda: Case(pod("a")).heard(a=(3, 4)), Load(3, 4), id="as told"),
        pytest.param(lambda: Case(pod("a")).heard(a=(3, 4)).silent("a"), Load(3, 4), id="a young number stands"),
        pytest.param(lambda: Case(pod("a", ready=False)).heard(a=(0, 4)), Load(0, 4), id="unready for a moment"),
        pytest.param(lambda: Case(pod("a", leaving=True)).heard(a=(0, 4)), Load(0, 0), id="its place is free already"),
        pytest.param(lambda: Case(pod("a"), pod("b")).heard(a=(1, 2), b=(3, 4)), Load(4, 6), id="summed"),
        pytest.param(lambda: Case(pod("a"), pod("b")).heard(a=(3, 4)), Load(3, 4), id="a new one adds nothing"),
        pytest.param(
            lambda: Case(pod("a"), pod("b"), pod("c")).heard(a=(1, 8), b=(2, 8)).silent("c"),
            Load(5, 24),
            id="a silent one is as busy as the others",
        ),
    ],
)
def test_the_load_of_a_service(virtual, case, expected):
    """Unknown is told as such: a 0 that nobody counted would scale a busy service in."""

    async def scenario():
        assert case().load == expected

    virtual(scenario())


def test_who_has_just_begun_knows_no_load_until_every_replica_was_asked(virtual):
    """The 0 of an operator that was started again would take the replicas from under their streams."""

    async def scenario():
        store = Store()
        loads = ServiceLoads(store)
        store.put(INFERENCE_SERVICE, SERVICE)
        assert loads.of(*KEY) is None, "its pods have not been listed yet"
        for name in ("a", "b", "silent"):
            store.put(POD, pod(name))
        loads.begin({"a", "b", "silent"})
        loads.heard(KEY, "a", Load(0, 4), stands=10)
        loads.silent("silent")
        assert loads.of(*KEY) is None, "what is known of one replica would be taken for all"
        loads.heard(KEY, "b", Load(0, 2), stands=10)
        assert loads.of(*KEY) == Load(0, 9)

    virtual(scenario())


def test_a_number_grows_old(virtual):
    """A pod that stays ready, and that we don't reach any more, has no load that anybody knows."""

    async def scenario():
        case = Case(pod("a")).heard(a=(3, 4))
        await asyncio.sleep(9.9)
        assert case.load == Load(3, 4)
        await asyncio.sleep(0.2)
        assert case.load is None

    virtual(scenario())


def test_held_requests_wait_until_they_are_answered_or_forgotten(virtual):
    """They count beside the pods' own; a gateway repeats itself, or says 0, or is forgotten."""

    async def scenario():
        case = Case(pod("a")).heard(a=(1, 2))
        assert not case.loads.activate("default", "nobody", 3)
        assert case.loads.activate(*KEY, 3)
        assert case.load == Load(4, 2)
        assert case.loads.activate(*KEY, 0)
        assert case.load == Load(1, 2)
        empty = Case()
        empty.loads.activate(*KEY, 5)
        await asyncio.sleep(HOLD_SECONDS - 1)
        assert empty.load == Load(5, 0)
        empty.loads.activate(*KEY, 2)
        await asyncio.sleep(HOLD_SECONDS - 1)
        assert empty.load == Load(2, 0)
        await asyncio.sleep(2)
        assert empty.load == Load(0, 0)

    virtual(scenario())


def test_who_waits_for_another_load_gets_it_at_once(virtual):
    """A held request and a pod's answer wake it without delay; what no call tells (a pod is gone) within a second."""

    async def scenario():
        case, clock = Case(pod("a")), asyncio.get_running_loop()
        case.heard(a=(0, 0))

        async def next_load(cause, *arguments):
            waiting = asyncio.create_task(case.loads.other_than(*KEY, case.load))
            await asyncio.sleep(0.25)
            assert not waiting.done(), "nothing has changed yet"
            before = clock.time()
            cause(*arguments)
            return await waiting, clock.time() - before

        assert await next_load(lambda: case.heard(a=(0, 1))) == (Load(0, 1), 0)
        assert await next_load(case.loads.activate, *KEY, 2) == (Load(2, 1), 0)
        load, seconds = await next_load(case.store.remove, POD, pod("a"))
        assert load == Load(2, 0)
        assert 0 < seconds <= 1
        assert await case.loads.other_than(*KEY, Load(9, 9)) == Load(2, 0), "it is another one already"

    virtual(scenario())


def test_pods_and_services_that_are_gone_are_forgotten(virtual):
    """An operator that runs for months keeps what is alive."""

    async def scenario():
        case = Case(pod("a")).heard(a=(3, 4))
        case.loads.activate(*KEY, 1)
        case.store.remove(INFERENCE_SERVICE, SERVICE)
        case.loads.keep(set())
        case.store.put(INFERENCE_SERVICE, SERVICE | {"metadata": SERVICE["metadata"] | {"uid": "successor"}})
        assert case.load == Load(0, 0), "neither a number nor a held request is inherited"

    virtual(scenario())


def test_loads_of_services_that_scale_are_told_to_prometheus():
    """One whose load nobody knows has no series, and one of fixed replicas needs none."""
    store, scaled = Store(), {"autoscaling": {"maxReplicas": 2}}
    loads, metrics = ServiceLoads(store), OperatorMetrics()
    loads.begin(frozenset())
    metrics.follow_loads(loads.known)
    for name, spec in (("fixed", {}), ("idle", scaled), ("silent", scaled)):
        store.put(INFERENCE_SERVICE, {"metadata": SERVICE["metadata"] | {"name": name, "uid": name}, "spec": spec})
    silent = pod("a")
    silent["metadata"]["labels"] = {"pagoda.dev/service": "silent"}
    store.put(POD, silent)
    loads.silent("a")

    async def told():
        loads.activate("default", "idle", 7)
        return [line for line in metrics.text().decode().splitlines() if line.startswith("pagoda_service_")]

    assert asyncio.run(told()) == [
        'pagoda_service_requests_waiting{inferenceservice="default/idle"} 7.0',
        'pagoda_service_requests_running{inferenceservice="default/idle"} 0.0',
    ]


def test_requests_that_loading_replicas_will_take_do_not_press(virtual):
    """One serves, two load, 40 requests wait: 32 have a place to come, and the 3 replicas asked for stay asked for."""

    async def scenario():
        loading = [pod(name, ready=False, started=False) for name in ("b", "c")]
        for each in loading:
            each["spec"]["nodeName"] = "n"
        case = Case(pod("a"), *loading).heard(a=(40, 16))
        service = SERVICE | {"spec": {"replicas": 3, "autoscaling": {"waitingRequests": 5, "maxReplicas": 9}}}
        service = service | {"metadata": SERVICE["metadata"] | {"resourceVersion": "2"}}
        case.store.put(INFERENCE_SERVICE, service | {"status": {"plan": {"maxNumSeqs": 16}}})
        assert case.load == Load(40, 16)
        assert case.loads.pressing(*KEY) == Load(15, 16)
        assert case.loads.pressing("default", "nobody") is None

    virtual(scenario())
