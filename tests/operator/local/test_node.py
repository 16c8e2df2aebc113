"""Deployments on the local node: pods are real processes, requests go through the proxy, and nothing is left."""

import asyncio
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from pagoda_operator.cluster.memory import MemoryCluster
from pagoda_operator.cluster.resources import DEPLOYMENT, PERSISTENT_VOLUME_CLAIM, POD, SECRET
from pagoda_operator.local.deployments import Deployments
from pagoda_operator.local.endpoints import Endpoints
from pagoda_operator.local.node import LocalNode
from pagoda_operator.local.service_proxy import TcpProxy

LABELS = {"pagoda.dev/service": "x"}


class Town:
    """A cluster with its controllers, a proxy before the pods of service `x`, and the port that they listen on."""

    def __init__(self, folder: Path) -> None:
        self.cluster = MemoryCluster()
        self.folder = folder
        with socket.socket() as probe:
            # Not 8000, which `pagoda local up` has by default: its tests run at the same time.
            probe.bind(("127.0.0.2", 0))
            self.port = probe.getsockname()[1]
        self.endpoints = Endpoints(self.cluster, namespace="default", service="x", port=self.port)
        self.proxy = TcpProxy("127.0.0.1", 0, self.endpoints.addresses)
        environment = {"PATH": "/usr/bin:/bin"}
        self.node = LocalNode(
            self.cluster, name="n", folder=folder / "pods", models=folder / "models", environment=environment
        )

    async def ready(self) -> int:
        return len(self.endpoints.addresses())

    async def pods(self) -> list[dict]:
        return await self.cluster.list(POD, "default")

    async def deployment(self) -> dict:
        return await self.cluster.get(DEPLOYMENT, "default", "x")

    async def until(self, condition, seconds: float = 60):
        """Wait until an awaitable condition holds; returns what it gave."""
        async with asyncio.timeout(seconds):
            while not (result := await condition()):  # noqa: ASYNC110 - made true by other processes
                await asyncio.sleep(0.02)
        return result


@asynccontextmanager
async def town_in(folder: Path):
    town = Town(folder)
    async with asyncio.TaskGroup() as group, town.proxy:
        running = (town.node.run(), town.endpoints.run(), Deployments(town.cluster, node_name="n").run())
        tasks = [group.create_task(coroutine) for coroutine in running]
        yield town
        for task in tasks:
            task.cancel()


@pytest.fixture
def wanted(server_code, python):
    """A Deployment of HTTP servers that answer with `answer`."""

    def make(port: int, replicas: int, answer: str = "a", **container) -> dict:
        env = [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "ANSWER", "value": answer},
            *container.pop("env", ()),
        ]
        spec = {
            "name": "c",
            "command": python(server_code, "$(POD_IP)", str(port)),
            "env": env,
            "ports": [{"name": "http", "containerPort": port}],
            "readinessProbe": {
                "httpGet": {"path": "/ready", "port": "http"},
                "periodSeconds": 0.1,
                "timeoutSeconds": 5,
            },
            **container,
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "x", "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [spec]}},
            },
        }

    return make


async def test_rolling_update_fails_no_request_and_keeps_enough_pods_ready(tmp_path, wanted):
    async with town_in(tmp_path) as town:
        await town.cluster.apply(DEPLOYMENT, wanted(town.port, 2, "old"), force=True)

        async def both_ready():
            return await town.ready() == 2

        await town.until(both_ready)
        answers, least, done = [], [2], asyncio.Event()

        async def ask_all_the_time():
            url = "http://{}:{}/".format(*town.proxy.address)
            while not done.is_set():
                async with aiohttp.ClientSession() as session, session.get(url) as response:
                    answers.append(await response.text())
                least.append(await town.ready())

        async def rolled_out():
            status = (await town.deployment())["status"]
            return status.get("updatedReplicas") == status.get("readyReplicas") == status.get("replicas") == 2

        asking = asyncio.create_task(ask_all_the_time())
        first = {pod["metadata"]["name"] for pod in await town.pods()}
        await town.cluster.apply(DEPLOYMENT, wanted(town.port, 2, "new"), force=True)

        async def replaced():
            names = {pod["metadata"]["name"] for pod in await town.pods()}
            return len(names) == 2 and not names & first and await rolled_out()

        await town.until(replaced)
        done.set()
        await asking
        assert set(answers) == {"old", "new"}
        assert answers[-1] == "new"
        assert min(least) == 2
        live = (await town.deployment())["status"]
        assert live["observedGeneration"] == 2


async def test_pods_have_addresses_of_their_own_and_give_them_back(tmp_path, wanted):
    async with town_in(tmp_path) as town:
        await town.cluster.apply(DEPLOYMENT, wanted(town.port, 2), force=True)

        async def both_ready():
            return await town.ready() == 2

        await town.until(both_ready)
        assert len({host for host, _ in town.endpoints.addresses()}) == 2
        before = sorted(town.endpoints.addresses())
        uid = (await town.deployment())["metadata"]["uid"]
        await town.cluster.delete(DEPLOYMENT, "default", "x", uid=uid)

        async def all_gone():
            return not await town.pods()

        await town.until(all_gone)
        assert town.endpoints.addresses() == []
        await town.cluster.apply(DEPLOYMENT, wanted(town.port, 2), force=True)
        await town.until(both_ready)
        assert sorted(town.endpoints.addresses()) == before


async def test_address_where_somebody_listens_is_passed_over(tmp_path, wanted):
    async with town_in(tmp_path) as town:
        stranger = await asyncio.start_server(lambda r, w: None, "127.0.0.2", town.port)
        await town.cluster.apply(DEPLOYMENT, wanted(town.port, 1), force=True)

        async def ready():
            return await town.ready()

        await town.until(ready)
        assert town.endpoints.addresses()[0][0] != "127.0.0.2"
        stranger.close()


async def test_deleted_pod_is_replaced(tmp_path, wanted):
    async with town_in(tmp_path) as town:
        await town.cluster.apply(DEPLOYMENT, wanted(town.port, 1), force=True)

        async def ready():
            return await town.ready()

        await town.until(ready)
        (first,) = await town.pods()
        await town.cluster.delete(POD, "default", first["metadata"]["name"], uid=first["metadata"]["uid"])

        async def another():
            pods = await town.pods()
            return len(pods) == 1 and pods[0]["metadata"]["uid"] != first["metadata"]["uid"] and await town.ready()

        await town.until(another)


async def test_claims_are_bound_and_are_the_models_folder(tmp_path, python):
    (tmp_path / "models").mkdir()
    code = "import sys, time; open(sys.argv[1], 'w').write('model'); time.sleep(1000)"
    spec = {
        "nodeName": "n",
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "c",
                "command": python(code, "/models/file"),
                "volumeMounts": [{"name": "models", "mountPath": "/models"}],
            }
        ],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "x-models"}}],
    }
    claim = {"metadata": {"name": "x-models", "namespace": "default"}, "spec": {}}
    async with town_in(tmp_path) as town:
        await town.cluster.create(
            PERSISTENT_VOLUME_CLAIM, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim}
        )
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec}
        await town.cluster.create(POD, pod)

        async def written():
            file = tmp_path / "models" / "file"
            return file.exists() and file.read_text() == "model"

        await town.until(written)
        live = await town.cluster.get(PERSISTENT_VOLUME_CLAIM, "default", "x-models")
        assert live["status"]["phase"] == "Bound"


async def test_secret_reaches_the_pod(tmp_path, wanted):
    async with town_in(tmp_path) as town:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub", "namespace": "default"}}
        await town.cluster.apply(SECRET, {**secret, "data": {"token": "aGZfeA=="}}, force=True)
        env = [{"name": "ANSWER", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
        await town.cluster.apply(DEPLOYMENT, wanted(town.port, 1, env=env), force=True)

        async def ready():
            return await town.ready()

        await town.until(ready)
        url = "http://{}:{}/".format(*town.proxy.address)
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert await response.text() == "hf_x"


async def test_pod_that_cannot_be_run_says_why_and_goes_when_deleted(tmp_path, wanted):
    async with town_in(tmp_path) as town:
        broken = wanted(town.port, 1)
        broken["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "nfs": {}}]
        await town.cluster.apply(DEPLOYMENT, broken, force=True)

        async def told():
            pods = await town.pods()
            return pods and pods[0].get("status", {}).get("containerStatuses")

        (status,) = await town.until(told)
        assert status["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        assert "volume 'v' is nfs" in status["state"]["waiting"]["message"]
        uid = (await town.deployment())["metadata"]["uid"]
        await town.cluster.delete(DEPLOYMENT, "default", "x", uid=uid)

        async def all_gone():
            return not await town.pods()

        await town.until(all_gone)
