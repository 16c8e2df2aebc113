"""The metrics of `/metrics`, under vLLM's names and labels, so that its dashboards and scalers work unchanged.

Times are taken where the engine's message arrives, not where a client reads, so that a slow reader does not look like a
slow engine.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from pagoda_engine.contract import EngineArgs, Metric
from pagoda_engine.ipc.messages import Ready
from pagoda_engine.process.client import EngineClient

# fmt: off
TTFT_BUCKETS: Final = (
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)
ITL_BUCKETS: Final = (
    .001, .0025, .005, .0075, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)
"""vLLM's, which begin at 10 ms, and four finer ones: a small model on a fast GPU is below its first."""
LATENCY_BUCKETS: Final = (
    .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)
HTTP_BUCKETS: Final = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# fmt: on
_LABELS: Final = ("model_name", "engine")


class Metrics:
    """One server's metrics in a registry of their own; the `Observer` of its engine client."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        labels = {"model_name": model_name, "engine": "0"}

        def counter(name: Metric, text: str) -> Counter:
            return Counter(name, text, _LABELS, registry=self.registry).labels(**labels)

        def histogram(name: Metric, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, _LABELS, buckets=buckets, registry=self.registry).labels(**labels)

        self._labels = labels
        self._prompt_tokens = counter(Metric.PROMPT_TOKENS, "Prompt tokens of requests that have started.")
        self._generation_tokens = counter(Metric.GENERATION_TOKENS, "Tokens generated.")
        self._ttft = histogram(Metric.TTFT, "From arrival to the first token, seconds.", TTFT_BUCKETS)
        self._itl = histogram(Metric.ITL, "From one token of a request to the next, seconds.", ITL_BUCKETS)
        self._e2e = histogram(Metric.E2E_LATENCY, "From arrival to the last token, seconds.", LATENCY_BUCKETS)
        self._queue = histogram(Metric.QUEUE_TIME, "From arrival to the first step, seconds.", LATENCY_BUCKETS)
        self._finished = Counter(
            Metric.REQUEST_SUCCESS,
            "Requests that ended, by reason.",
            (*_LABELS, "finished_reason"),
            registry=self.registry,
        )
        for reason in ("stop", "length", "abort", "error"):
            self._finished.labels(**labels, finished_reason=reason)  # a rate needs the zero before the first
        self._http_requests = Counter(
            "http_requests", "HTTP requests, by route.", ("method", "handler", "status"), registry=self.registry
        )
        self._http_seconds = Histogram(
            "http_request_duration_seconds",
            "From a request's headers to its last byte, seconds.",
            ("method", "handler"),
            buckets=HTTP_BUCKETS,
            registry=self.registry,
        )

    def watch(self, client: EngineClient) -> None:
        """Show the engine's own numbers, read when they are asked for."""
        gauges = (
            (Metric.RUNNING, "Requests in the running batch.", lambda: client.latest.running),
            (Metric.WAITING, "Requests that wait for their first step.", lambda: client.waiting),
            (Metric.KV_USAGE, "Share of the KV cache in use, 0 to 1.", lambda: client.latest.kv_usage),
        )
        for name, text, read in gauges:
            Gauge(name, text, _LABELS, registry=self.registry).labels(**self._labels).set_function(read)
        self.registry.register(_EngineCounters(client, self._labels))

    def describe_cache(self, ready: Ready, args: EngineArgs) -> None:
        """`vllm:cache_config_info`, whose labels are the message: schedulers read block size and count from it."""
        labels = {
            "engine": "0",
            "block_size": str(ready.block_size),
            "num_gpu_blocks": str(ready.num_blocks),
            "gpu_memory_utilization": str(args.gpu_memory_utilization),
            "kv_cache_size_tokens": str(ready.num_blocks * ready.block_size),
            "kv_cache_max_concurrency": f"{ready.num_blocks * ready.block_size / ready.max_model_len:.2f}",
            "max_model_len": str(ready.max_model_len),
        }
        info = Gauge(Metric.CACHE_CONFIG, "The KV cache's configuration.", tuple(labels), registry=self.registry)
        info.labels(**labels).set(1)

    def first_token(self, prompt_tokens: int, since_arrival: float, queued: float | None) -> None:
        self._prompt_tokens.inc(prompt_tokens)
        self._ttft.observe(since_arrival)
        if queued is not None:
            self._queue.observe(queued)

    def later_token(self, since_last: float) -> None:
        self._itl.observe(since_last)

    def generated(self, tokens: int) -> None:
        self._generation_tokens.inc(tokens)

    def finished(self, reason: str, since_arrival: float) -> None:
        self._finished.labels(**self._labels, finished_reason=reason).inc()
        self._e2e.observe(since_arrival)

    def http(self, method: str, handler: str, status: int, seconds: float) -> None:
        self._http_requests.labels(method, handler, str(status)).inc()
        self._http_seconds.labels(method, handler).observe(seconds)

    def text(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)


class _EngineCounters(Collector):
    """What the engine counts itself, as it told last."""

    def __init__(self, client: EngineClient, labels: dict[str, str]) -> None:
        self._client = client
        self._labels = labels

    def collect(self) -> list[CounterMetricFamily]:
        latest = self._client.latest
        return [
            self._family(Metric.PREEMPTIONS, "Requests set back to make room for others.", latest.preemptions),
            self._family(Metric.PREFIX_QUERIES, "Prompt tokens looked for in the prefix cache.", latest.prefix_queries),
            self._family(Metric.PREFIX_HITS, "Prompt tokens found in the prefix cache.", latest.prefix_hits),
            self._family(
                Metric.LATE_COMPILES, "GPU kernels compiled after the engine was ready.", latest.late_compiles
            ),
        ]

    def _family(self, name: Metric, text: str, value: int) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=_LABELS)
        family.add_metric(tuple(self._labels.values()), value)
        return family
