"""KEDA's side of the external-push trigger, against the real server over a real connection."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message_factory import GetMessages
from grpc_tools import protoc

from pagoda_operator.scaling.external_push import serve_external_push
from pagoda_operator.scaling.keda_protocol import CLASSES
from pagoda_operator.scaling.load import Load

PROTO = Path(__file__).parent / "externalscaler.proto"
WAITING = {"service": "qwen", "metric": "vllm:num_requests_waiting", "target": "4"}
RUNNING = {"service": "qwen", "metric": "vllm:num_requests_running", "target": "12.5"}


class Known:
    """Loads that the test sets."""

    def __init__(self):
        self._loads = {}
        self.expected = {}
        """What speaks for more replicas, where that is less than the load."""
        self._turn = asyncio.Condition()

    def of(self, namespace, name):
        return self._loads.get((namespace, name))

    def pressing(self, namespace, name):
        return self.expected.get((namespace, name), self.of(namespace, name))

    async def other_than(self, namespace, name, seen):
        async with self._turn:
            await self._turn.wait_for(lambda: self.of(namespace, name) not in (None, seen))
        return self.of(namespace, name)

    def activate(self, namespace, name, requests):
        raise NotImplementedError("KEDA does not hold requests")

    async def set(self, load):
        async with self._turn:
            self._loads["default", "qwen"] = load
            self._turn.notify_all()


class Keda:
    """KEDA's calls; its messages are made by the protobuf compiler from the contract."""

    def __init__(self, messages, channel):
        self._messages = messages
        self._channel = channel

    def reference(self, metadata):
        return self._messages["ScaledObjectRef"](name="qwen", namespace="default", scalerMetadata=metadata)

    async def ask(self, method, answer, request):
        call = self._channel.unary_unary(
            f"/externalscaler.ExternalScaler/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages[answer].FromString,
        )
        return await call(request)

    async def is_active(self, metadata=WAITING):
        return (await self.ask("IsActive", "IsActiveResponse", self.reference(metadata))).result

    async def spec(self, metadata):
        (spec,) = (await self.ask("GetMetricSpec", "GetMetricSpecResponse", self.reference(metadata))).metricSpecs
        return spec

    async def value(self, metadata):
        name = (await self.spec(metadata)).metricName
        request = self._messages["GetMetricsRequest"](scaledObjectRef=self.reference(metadata), metricName=name)
        (value,) = (await self.ask("GetMetrics", "GetMetricsResponse", request)).metricValues
        assert value.metricName == name
        return value.metricValueFloat

    def stream(self, metadata=WAITING):
        return self._channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamIsActive",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages["IsActiveResponse"].FromString,
        )(self.reference(metadata))


@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    """The contract, read by the protobuf compiler."""
    target = tmp_path_factory.mktemp("proto") / "contract.pb"
    assert protoc.main(["protoc", f"-I{PROTO.parent}", f"--descriptor_set_out={target}", PROTO.name]) == 0
    found = GetMessages(FileDescriptorSet.FromString(target.read_bytes()).file)
    return {name.removeprefix("externalscaler."): one for name, one in found.items()}


@pytest.fixture
def loads():
    return Known()


@pytest.fixture
async def keda(loads, messages):
    async with (
        serve_external_push("127.0.0.1", 0, loads) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Keda(messages, channel)


def test_the_messages_are_those_of_the_contract(messages):
    """Each field that the server knows has the contract's name, number and kind."""
    for name, known in CLASSES.items():
        if name == "MetadataEntry":  # the compiler's own name of a map's entry is another
            continue
        theirs = messages[name].DESCRIPTOR.fields_by_name
        for field in known.DESCRIPTOR.fields:
            other = theirs[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)


async def test_each_trigger_is_told_its_own_metric_and_target(keda, loads):
    """The larger of the two wins at the HPA controller: so each is told apart, with its target per replica."""
    await loads.set(Load(waiting=7, running=20))
    assert await keda.value(WAITING) == 7
    assert await keda.value(RUNNING) == 20
    spec = await keda.spec(RUNNING)
    assert (spec.metricName, spec.targetSizeFloat) == ("vllm-num_requests_running", 12.5)


@pytest.mark.parametrize(
    ("load", "active"), [(Load(0, 0), False), (Load(3, 0), True), (Load(0, 1), True), (Load(2, 2), True)]
)
@pytest.mark.parametrize("metadata", [WAITING, RUNNING])
async def test_a_service_is_active_while_anything_waits_or_runs(keda, loads, load, active, metadata):
    """By either trigger: a stream that runs with an empty queue is never cut by going to zero."""
    await loads.set(load)
    assert await keda.is_active(metadata) is active


async def test_nothing_is_told_of_a_load_that_nobody_knows(keda, loads):
    """An error, never 0: KEDA keeps the replicas or falls back, and does not scale in."""
    for ask in (keda.is_active(), keda.value(WAITING)):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ask
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "default/qwen" in refusal.value.details()
    assert (await keda.spec(WAITING)).targetSizeFloat == 4, "a target needs no load"


async def test_a_stream_tells_at_once_and_at_each_turn(keda, loads):
    """State first; then the first request wakes KEDA without a poll, and more requests do not."""
    await loads.set(Load(0, 0))
    stream = keda.stream()
    assert (await stream.read()).result is False
    await loads.set(Load(1, 0))
    assert (await stream.read()).result is True
    for load in (Load(5, 0), Load(0, 5), None, Load(0, 2), Load(0, 0)):
        await loads.set(load)
    assert (await stream.read()).result is False


async def test_a_stream_waits_for_a_load_to_be_known(keda, loads):
    stream = keda.stream()
    told = asyncio.ensure_future(stream.read())
    assert await keda.spec(WAITING)
    assert not told.done()
    await loads.set(Load(0, 1))
    assert (await told).result is True


async def test_streams_end_well_when_the_operator_stops(loads, messages):
    """KEDA doubles its pause after each stream that breaks, and only one that ended well resets it."""
    await loads.set(Load(0, 0))
    async with AsyncExitStack() as server:
        port = await server.enter_async_context(serve_external_push("127.0.0.1", 0, loads))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = Keda(messages, channel).stream()
            assert (await stream.read()).result is False
            await server.aclose()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("service", "", "trigger metadata lacks `service`"),
        ("metric", "vllm:gpu_cache_usage_perc", "must be vllm:num_requests_waiting or vllm:num_requests_running"),
        ("target", "many", "trigger metadata `target` is 'many'; it must be a number above 0"),
        ("target", "0", "trigger metadata `target` is '0'; it must be a number above 0"),
        ("target", "inf", "trigger metadata `target` is 'inf'; it must be a number above 0"),
    ],
)
async def test_metadata_that_can_not_be_used_is_refused_by_name(keda, entry, value, words):
    for asking in (keda.is_active({**WAITING, entry: value}), keda.stream({**WAITING, entry: value}).read()):
        with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT") as refusal:
            await asking
        assert words in refusal.value.details()


async def test_keda_is_told_that_targets_are_not_streamed(keda):
    """UNIMPLEMENTED is how an external scaler says so; KEDA then asks GetMetricSpec."""
    with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
        await keda.ask("StreamMetricSpec", "GetMetricSpecResponse", keda.reference(WAITING))


async def test_a_port_in_use_is_named(loads):
    async with serve_external_push("127.0.0.1", 0, loads) as port:
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            async with serve_external_push("127.0.0.1", port, loads):
                pass


async def test_a_metric_is_what_presses_and_activity_is_the_load(keda, loads):
    """Replicas that load will take the requests that wait: no reason for more of them, and none to go to zero."""
    await loads.set(Load(waiting=40, running=0))
    loads.expected["default", "qwen"] = Load(0, 0)
    assert await keda.value(WAITING) == 0
    assert await keda.is_active(WAITING)
