"""KEDA's external-push trigger, served by the operator over gRPC: for clusters without a Prometheus, and from zero.

A trigger's metadata names the service, the metric and the target (see `Trigger`). KEDA asks for the value whenever the
HPA controller asks KEDA, and is told at once when an idle service gets its first request. Nothing is written here.

The connection is plain: KEDA reads the lengths of queues and changes nothing. The chart's `networkPolicy` says who may.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc

from pagoda_engine.contract import Metric
from pagoda_operator.scaling.keda_protocol import CLASSES, SERVICE
from pagoda_operator.scaling.load import Load, Loads

STREAM_SECONDS: Final = 600.0
"""Life of a stream, which then ends well. KEDA waits longer after each stream that breaks, up to a minute, and forgets
that only when one ends well (`runStreamIsActive` in its pkg/scalers/external_scaler.go)."""
STOP_SECONDS: Final = 2.0
KEEPALIVE: Final = (("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000))
"""A KEDA whose node went without a word holds its streams no longer than this."""

_VALUES: Final[dict[str, Callable[[Load], int]]] = {
    str(Metric.WAITING): lambda load: load.waiting,
    str(Metric.RUNNING): lambda load: load.running,
}


class BadTrigger(ValueError):
    """A trigger's metadata can't be used; says which entry, its value, and what it must be."""


class LoadUnknown(Exception):
    """Nobody knows the load of the service; KEDA then keeps the replicas, or falls back where told so."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Who asks: a trigger of type `external-push` with the metadata `service`, `metric` and `target`."""

    namespace: str
    service: str
    metric: str
    """`vllm:num_requests_waiting` or `vllm:num_requests_running`."""
    target: float
    """Value per replica above which replicas are added."""

    @classmethod
    def of(cls, reference: Any) -> Trigger:
        """From a ScaledObjectRef. Raises BadTrigger."""
        metadata = {entry.key: entry.value for entry in reference.scalerMetadata}
        if not (service := metadata.get("service", "")):
            raise BadTrigger("trigger metadata lacks `service`: set it to the name of an InferenceService")
        if (metric := metadata.get("metric", "")) not in _VALUES:
            raise BadTrigger(f"trigger metadata `metric` is {metric!r}; it must be {' or '.join(_VALUES)}")
        try:
            target = float(metadata.get("target", ""))
        except ValueError:
            target = 0.0
        if not 0 < target < float("inf"):
            raise BadTrigger(
                f"trigger metadata `target` is {metadata.get('target', '')!r}; it must be a number above 0"
            )
        return cls(reference.namespace, service, metric, target)

    @property
    def metric_name(self) -> str:
        """The metric's name at KEDA, which becomes part of a path at the API server."""
        return self.metric.replace(":", "-")


class ExternalPush:
    """The four calls of KEDA's ExternalScaler service that this server answers, of what `loads` knows.

    StreamMetricSpec is left out, as KEDA allows: a target changes with the ScaledObject alone.
    """

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._waiting: set[asyncio.Timeout] = set()
        self._ending = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        methods = {
            "IsActive": _unary(self._is_active, "ScaledObjectRef"),
            "GetMetricSpec": _unary(self._metric_spec, "ScaledObjectRef"),
            "GetMetrics": _unary(self._metrics, "GetMetricsRequest"),
            "StreamIsActive": grpc.unary_stream_rpc_method_handler(
                _refusing(self._stream_is_active),
                request_deserializer=CLASSES["ScaledObjectRef"].FromString,
                response_serializer=CLASSES["IsActiveResponse"].SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def end_streams(self) -> None:
        """Let every stream end well, now."""
        self._ending = True
        for stream in self._waiting:
            stream.reschedule(asyncio.get_running_loop().time())

    async def _is_active(self, request: Any, _: Any) -> Any:
        trigger = Trigger.of(request)
        return _activity(_known(trigger, self._loads.of(trigger.namespace, trigger.service)))

    async def _metric_spec(self, request: Any, _: Any) -> Any:
        trigger = Trigger.of(request)
        spec = CLASSES["MetricSpec"](metricName=trigger.metric_name, targetSizeFloat=trigger.target)
        return CLASSES["GetMetricSpecResponse"](metricSpecs=[spec])

    async def _metrics(self, request: Any, _: Any) -> Any:
        trigger = Trigger.of(request.scaledObjectRef)
        load = _known(trigger, self._loads.pressing(trigger.namespace, trigger.service))
        value = _VALUES[trigger.metric](load)
        answer = CLASSES["MetricValue"](metricName=request.metricName, metricValueFloat=float(value))
        return CLASSES["GetMetricsResponse"](metricValues=[answer])

    async def _stream_is_active(self, request: Any, context: Any) -> None:
        """Tell at once whether the service is active, and again each time that changes; unknown is no change."""
        trigger = Trigger.of(request)
        load: Load | None = None
        told: bool | None = None
        ends = asyncio.get_running_loop().time() + STREAM_SECONDS
        with suppress(TimeoutError):
            while not self._ending:
                load = await self._next_load(trigger, load, ends)
                if load is not None and (load.requests > 0) is not told:
                    told = load.requests > 0
                    await context.write(_activity(load))

    async def _next_load(self, trigger: Trigger, seen: Load | None, ends: float) -> Load | None:
        """Raises TimeoutError when the stream is to end. A stream ends only here: cut in a write, it would break."""
        async with asyncio.timeout_at(ends) as waiting:
            self._waiting.add(waiting)
            try:
                return await self._loads.other_than(trigger.namespace, trigger.service, seen)
            finally:
                self._waiting.discard(waiting)


@asynccontextmanager
async def serve_external_push(host: str, port: int, loads: Loads) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port, which is any free one for 0. Raises OSError."""
    # Without this option two processes may share a port, and half of KEDA's calls get lost.
    server = grpc.aio.server(options=(*KEEPALIVE, ("grpc.so_reuseport", 0)))
    scaler = ExternalPush(loads)
    server.add_generic_rpc_handlers((scaler.handlers(),))
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"can't listen on {host}:{port}: {error}") from None
    await server.start()
    try:
        yield bound
    finally:
        scaler.end_streams()
        await server.stop(STOP_SECONDS)


def _known(trigger: Trigger, load: Load | None) -> Load:
    """Raises LoadUnknown."""
    if load is None:
        name = f"{trigger.namespace}/{trigger.service}"
        raise LoadUnknown(f"the load of {name} is unknown: no such InferenceService, or its replicas don't answer")
    return load


def _activity(load: Load) -> Any:
    return CLASSES["IsActiveResponse"](result=load.requests > 0)


_Method = Callable[[Any, Any], Awaitable[Any]]


def _unary(method: _Method, request: str) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        _refusing(method),
        request_deserializer=CLASSES[request].FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _refusing(method: _Method) -> _Method:
    """`method`, whose exceptions become gRPC's statuses."""

    async def answer(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except BadTrigger as error:
            return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except LoadUnknown as error:
            return await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    return answer
