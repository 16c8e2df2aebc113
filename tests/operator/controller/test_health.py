"""What the operator says of itself."""

import aiohttp

from pagoda_operator.cluster.resources import DEPLOYMENT
from pagoda_operator.controller.health import serve_health
from pagoda_operator.controller.metrics import OperatorMetrics


async def test_it_is_alive_at_once_and_ready_when_the_cluster_was_read():
    metrics, ready = OperatorMetrics(), []
    metrics.reconciled("success", 0.01)
    metrics.called("apply", DEPLOYMENT, 200)
    metrics.called("get", DEPLOYMENT, 0)
    metrics.leading(True)
    metrics.follow(lambda: 3, lambda: 7)
    async with serve_health("127.0.0.1", 0, lambda: bool(ready), metrics) as port, aiohttp.ClientSession() as session:

        async def get(path):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        assert await get("/healthz") == (200, "ok")
        assert (await get("/readyz"))[0] == 503
        ready.append(True)
        assert await get("/readyz") == (200, "ok")
        lines = (await get("/metrics"))[1].splitlines()
    for line in (
        'controller_runtime_reconcile_total{controller="inferenceservice",result="success"} 1.0',
        'rest_client_requests_total{code="200",resource="deployments.apps",verb="apply"} 1.0',
        'rest_client_requests_total{code="none",resource="deployments.apps",verb="get"} 1.0',
        'workqueue_depth{name="inferenceservice"} 3.0',
        "pagoda_operator_services 7.0",
        'leader_election_master_status{name="inferenceservice"} 1.0',
    ):
        assert line in lines
