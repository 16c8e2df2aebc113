"""A service called qwen, and a controller at work for it: what the scenarios of the whole controller start from."""

import asyncio
from contextlib import asynccontextmanager

from pagoda_engine.contract import Metric, ModelFacts
from pagoda_operator.cluster.resources import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    PERSISTENT_VOLUME_CLAIM,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    SERVICE_ACCOUNT,
)
from pagoda_operator.controller.run import Controller
from pagoda_operator.controller.sources import StreamSource
from pagoda_operator.core.settings import Settings

FACTS = ModelFacts("LlamaForCausalLM", "bfloat16", 2 << 20, 1 << 20, 4, 8, 8, 16, 128, 1000, 512)
CHILDREN = [
    (SERVICE_ACCOUNT, "qwen"),
    (PERSISTENT_VOLUME_CLAIM, "qwen-models"),
    (SERVICE, "qwen"),
    (POD_DISRUPTION_BUDGET, "qwen"),
    (DEPLOYMENT, "qwen"),
]
NUMBERS = f"{Metric.WAITING} 0.0\n{Metric.RUNNING} 0.0\n".encode()


async def inspect(uri, environment):
    await asyncio.sleep(1)
    return FACTS


async def fetch(url):
    assert url.endswith("/metrics")
    return 200, NUMBERS


def qwen(name="qwen", **spec):
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"uri": "hf://org/model"}, "accelerator": "cpu", **spec},
    }


@asynccontextmanager
async def running(cluster, *, watched=None, **options):
    """A controller at work."""
    options = {"inspect": inspect, "fetch": fetch} | options
    source = options.pop("source", None) or StreamSource(watched or cluster)
    controller = Controller(cluster, source, Settings(), **options)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def names(cluster):
    return [(resource, obj["metadata"]["name"]) for resource, _ in CHILDREN for obj in await cluster.list(resource)]
