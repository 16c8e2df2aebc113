"""What pods answer reaches the store, and only what is worth a write is told."""

import asyncio

import pytest
from aiohttp import web

from pagoda_engine.contract import Metric, Progress, Stage
from pagoda_operator.cluster.resources import INFERENCE_SERVICE, POD
from pagoda_operator.controller.loads import ServiceLoads
from pagoda_operator.controller.news import worth_telling
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.controller.scrape import Scraper
from pagoda_operator.controller.store import Store
from pagoda_operator.core.facts import PodReport
from pagoda_operator.scaling.load import Load

KEY = ServiceKey("default", "qwen")


def loading(percent, stage=Stage.PULLING):
    return {"pod-a": PodReport(progress=Progress(stage, percent=percent))}


def ending(left):
    return {"pod-a": PodReport(progress=Progress(Stage.DRAINING, message=f"{left} requests left"))}


def serving(waiting, running):
    return {"pod-a": PodReport(progress=Progress(Stage.READY), waiting=waiting, running=running)}


@pytest.mark.parametrize(
    ("told", "known", "elapsed", "expected"),
    [
        ({}, {}, 1e9, False),
        ({}, loading(0), 0, True),  # a pod's first word
        (loading(99), loading(0, Stage.LOADING), 0, True),  # a new stage
        (loading(99), {}, 0, True),  # a pod is gone
        (loading(10), loading(10.9), 100, False),  # less than a percent
        (loading(10), loading(12), 1.9, False),  # too soon
        (loading(10), loading(12), 2, True),
        (loading(None), loading(3), 2, True),  # the size became known
        (serving(0, 0), serving(4, 0), 14.9, False),  # a queue begins
        (serving(0, 0), serving(4, 0), 15, True),
        (serving(4, 9), serving(5, 9), 14.9, False),  # a queue that moves
        (serving(4, 9), serving(5, 9), 15, True),
        (serving(4, 9), serving(4, 9), 1e9, False),  # steady
        (serving(4, 9), ending(9), 0, True),  # it is on its way out
        (ending(9), ending(8), 14.9, False),  # streams that end
        (ending(9), ending(8), 15, True),
        (ending(9), ending(9), 1e9, False),
        # Ready by its own word, then asked for its queue: nobody waits is news to who knew nothing.
        (serving(None, None), serving(0, 0), 0, True),
    ],
)
def test_only_what_is_worth_a_write_is_told(told, known, elapsed, expected):
    assert worth_telling(told, known, elapsed) is expected


@pytest.fixture
async def engine():
    """A pod's HTTP port on loopback, with the answers of an engine."""
    state = {"ready": (503, Progress(Stage.LOADING, percent=40).to_json()), "metrics": "", "asked": asyncio.Queue()}

    async def ready(request):
        state["asked"].put_nowait(request.path)
        status, text = state["ready"]
        return web.Response(status=status, text=text)

    async def metrics(request):
        state["asked"].put_nowait(request.path)
        return web.Response(text=state["metrics"])

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/metrics", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state["port"] = runner.addresses[0][1]
    yield state
    await runner.cleanup()


def service(**spec):
    metadata = {"namespace": "default", "name": "qwen", "uid": "u1", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": spec}


def pod(port, version, ready=False, name="pod-a"):
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": {"pagoda.dev/service": "qwen"},
        },
        "spec": {"containers": [{"name": "engine", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


async def test_a_pod_on_its_way_is_asked_for_progress_and_a_serving_one_for_numbers(engine):
    store, changed = Store(), asyncio.Queue()
    store.put(INFERENCE_SERVICE, service())
    store.put(POD, pod(engine["port"], 1))
    scraper = asyncio.create_task(Scraper(store, changed.put_nowait, ServiceLoads(store)).run())
    assert await changed.get() == KEY
    assert store.reports(KEY) == {"pod-a": PodReport(progress=Progress(Stage.LOADING, percent=40))}
    assert await engine["asked"].get() == "/ready"
    engine["metrics"] = f"{Metric.WAITING} 5.0\n{Metric.RUNNING} 2.0\n"
    store.put(POD, pod(engine["port"], 2, ready=True))
    assert await changed.get() == KEY
    assert store.reports(KEY)["pod-a"] == PodReport(progress=Progress(Stage.READY), waiting=5, running=2)
    scraper.cancel()
    await asyncio.wait([scraper])


async def test_a_pod_on_its_way_out_is_asked_what_it_has_left(engine):
    """Not for its load, which no longer counts; and nobody waits for it before a replica is given up."""
    store, changed = Store(), asyncio.Queue()
    store.put(INFERENCE_SERVICE, service())
    leaving = pod(engine["port"], 1, ready=True)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    store.put(POD, leaving)
    engine["ready"] = (503, Progress(Stage.DRAINING, message="3 requests left").to_json())
    scraper = Scraper(store, changed.put_nowait, ServiceLoads(store))
    running = asyncio.create_task(scraper.run())
    assert await changed.get() == KEY
    assert store.reports(KEY) == ending(3)
    assert await engine["asked"].get() == "/ready"
    assert await scraper.ask(KEY) == {}
    running.cancel()
    await asyncio.wait([running])


async def test_a_pod_that_answers_nonsense_has_no_report(engine):
    engine["ready"] = (200, "<html>hello</html>")
    store, changed = Store(), []
    store.put(INFERENCE_SERVICE, service())
    store.put(POD, pod(engine["port"], 1))
    scraper = asyncio.create_task(Scraper(store, changed.append, ServiceLoads(store)).run())
    # A second question means that the first answer has been dealt with.
    assert [await engine["asked"].get() for _ in range(2)] == ["/ready", "/ready"]
    assert store.reports(KEY) == {}
    assert changed == []
    scraper.cancel()
    await asyncio.wait([scraper])


def test_in_a_steady_state_nothing_is_told_for_hours(virtual):
    """An hour of the same answers wakes nobody after the first."""
    store, changed = Store(), []
    store.put(INFERENCE_SERVICE, service())
    store.put(POD, pod(8000, 1, ready=True))

    async def fetch(url):
        assert url == "http://127.0.0.1:8000/metrics"
        return 200, f"{Metric.WAITING} 0.0\n{Metric.RUNNING} 0.0\n".encode()

    async def scenario():
        running = asyncio.create_task(Scraper(store, changed.append, ServiceLoads(store), fetch=fetch).run())
        await asyncio.sleep(3600)
        running.cancel()

    virtual(scenario())
    assert changed == [KEY]


def test_a_queue_that_nobody_tells_of_any_more_is_told_no_longer(virtual):
    """A missed answer or two are no news; who is silent for longer has no number that anybody could believe."""
    store, told = Store(), []
    store.put(INFERENCE_SERVICE, service())
    store.put(POD, pod(8000, 1, ready=True))
    silent = [False]

    async def fetch(url):
        if silent[0]:
            raise TimeoutError
        return numbers(7, 7)

    async def scenario():
        loop = asyncio.get_running_loop()

        def changed(key):
            told.append((round(loop.time()), dict(store.reports(key))))

        running = asyncio.create_task(Scraper(store, changed, ServiceLoads(store), fetch=fetch).run())
        await asyncio.sleep(60)
        silent[0] = True
        await asyncio.sleep(3600)
        running.cancel()

    virtual(scenario())
    (_, before), (at, after) = told
    assert before == serving(7, 7)
    assert after == {}
    assert 75 <= at <= 90


def numbers(waiting, running):
    return 200, f"{Metric.WAITING} {waiting}.0\n{Metric.RUNNING} {running}.0\n".encode()


@pytest.mark.parametrize(("spec", "period"), [({}, 5), ({"autoscaling": {"maxReplicas": 3}}, 2)])
def test_a_service_that_is_scaled_is_asked_more_often(virtual, spec, period):
    """And whoever scales it hears a number that is not worth a write for people yet."""
    store, asked = Store(), []
    store.put(INFERENCE_SERVICE, service(**spec))
    store.put(POD, pod(8000, 1, ready=True))
    loads = ServiceLoads(store)

    async def fetch(url):
        asked.append(asyncio.get_running_loop().time())
        return numbers(len(asked), 1)

    async def scenario():
        running = asyncio.create_task(Scraper(store, lambda _: None, loads, fetch=fetch).run())
        await asyncio.sleep(11)
        assert asked == [float(time) for time in range(0, 11, period)]
        assert loads.of("default", "qwen") == Load(len(asked), 1)
        assert store.reports(KEY)["pod-a"].waiting == 1
        running.cancel()

    virtual(scenario())


def test_a_pod_that_does_not_answer_keeps_nobody_else_waiting(virtual):
    """Its answer takes 3 s to fail; the other one is heard every 2 s all the same.

    Who scales is not told what one of two does before the other has had its chance to speak.
    """
    store, asked = Store(), []
    loads = ServiceLoads(store)
    store.put(INFERENCE_SERVICE, service(autoscaling={"maxReplicas": 3}))
    store.put(POD, pod(1, 1, ready=True, name="hangs"))
    store.put(POD, pod(2, 2, ready=True, name="answers"))

    async def fetch(url):
        if url.startswith("http://127.0.0.1:1/"):
            await asyncio.sleep(3)
            raise TimeoutError
        asked.append(asyncio.get_running_loop().time())
        return numbers(0, 0)

    async def scenario():
        scraper = Scraper(store, lambda _: None, loads, fetch=fetch)
        running = asyncio.create_task(scraper.run())
        await asyncio.sleep(2.5)
        assert loads.of(*KEY) is None
        await scraper.asked_all.wait()
        assert loads.of(*KEY) == Load(0, 0)
        del asked[:]
        await asyncio.sleep(10)
        assert len(asked) == 5
        running.cancel()

    virtual(scenario())


def test_pods_can_be_asked_at_once(virtual):
    """Before a replica is given up, its work is to be known as it is now."""
    store, work = Store(), {"running": 1}
    store.put(INFERENCE_SERVICE, service())
    store.put(POD, pod(8000, 1, ready=True))

    async def fetch(url):
        return numbers(0, work["running"])

    async def scenario():
        scraper = Scraper(store, lambda _: None, ServiceLoads(store), fetch=fetch)
        running = asyncio.create_task(scraper.run())
        await scraper.asked_all.wait()
        work["running"] = 7
        assert (await scraper.ask(KEY))["pod-a"].running == 7
        running.cancel()

    virtual(scenario())
