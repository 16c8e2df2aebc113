"""What the operator says of itself."""

import aiohttp

from pagoda_operator.cluster.resources import DEPLOYMENT
from pagoda_operator.controller.health import Checks, serve_health
from pagoda_operator.controller.metrics import OperatorMetrics


async def test_it_is_alive_at_once_and_ready_when_the_cluster_was_read():
    metrics, ready, problem = OperatorMetrics(), [], []
    metrics.reconciled("success", 0.01)
    metrics.reconciled("error", 0.01)
    metrics.called("apply", DEPLOYMENT, 200, 0.02)
    metrics.called("get", DEPLOYMENT, 0, 30.0)
    metrics.leading(True)
    metrics.follow(depth=lambda: 3, longest=lambda: 0.5, services=lambda: 7)
    checks = Checks(ready=lambda: bool(ready), stuck=lambda: problem[0] if problem else None)
    async with serve_health("127.0.0.1", 0, checks, metrics) as port, aiohttp.ClientSession() as session:

        async def get(path):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        assert await get("/healthz") == (200, "ok")
        assert (await get("/readyz"))[0] == 503
        ready.append(True)
        assert await get("/readyz") == (200, "ok")
        problem.append("a reconcile has not ended for 300 s")
        assert await get("/healthz") == (503, "a reconcile has not ended for 300 s")
        lines = (await get("/metrics"))[1].splitlines()
    for line in (
        'controller_runtime_reconcile_total{controller="inferenceservice",result="success"} 1.0',
        'rest_client_requests_total{code="200",resource="deployments.apps",verb="apply"} 1.0',
        'rest_client_requests_total{code="none",resource="deployments.apps",verb="get"} 1.0',
        'controller_runtime_reconcile_errors_total{controller="inferenceservice"} 1.0',
        'rest_client_request_duration_seconds_count{verb="get"} 1.0',
        'workqueue_depth{name="inferenceservice"} 3.0',
        'workqueue_longest_running_processor_seconds{name="inferenceservice"} 0.5',
        "pagoda_operator_services 7.0",
        'leader_election_master_status{name="inferenceservice"} 1.0',
    ):
        assert line in lines
