"""Time that passes only when nobody has anything to do: hours of back-off in milliseconds, everywhere the same."""

import asyncio
import selectors

import pytest


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    now = 0.0

    def select(self, timeout=None):
        events = super().select(0)
        if not events and timeout is None:
            raise RuntimeError("deadlock: everything waits and no timer is set")
        if not events:
            self.now += timeout
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps from timer to timer. For code without real I/O."""

    def __init__(self):
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self):
        return self._clock.now


@pytest.fixture
def virtual():
    """Runs a coroutine in virtual time and gives its result."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(coroutine)

    return run


class RecordingCluster:
    """A cluster that notes every call that goes through it: (verb, kind, name)."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.writes = []
        self.reads = []
        self.refuse = {}

    def watch(self, resource, namespace=None, *, labels=None):
        return self.cluster.watch(resource, namespace, labels=labels)

    async def served(self, resource):
        return await self.cluster.served(resource)

    async def get(self, resource, namespace, name):
        self.reads.append(("get", resource.kind, name))
        return await self.cluster.get(resource, namespace, name)

    async def list(self, resource, namespace=None, **selection):
        self.reads.append(("list", resource.kind, ""))
        return await self.cluster.list(resource, namespace, **selection)

    async def pages(self, resource, namespace=None, *, labels=None, metadata_only=False):
        yield await self.list(resource, namespace, labels=labels, metadata_only=metadata_only)

    async def create(self, resource, obj):
        self._note("create", resource, obj["metadata"]["name"])
        return await self.cluster.create(resource, obj)

    async def replace(self, resource, obj):
        self._note("replace", resource, obj["metadata"]["name"])
        return await self.cluster.replace(resource, obj)

    async def apply(self, resource, obj, *, force):
        self._note("force" if force else "apply", resource, obj["metadata"]["name"])
        return await self.cluster.apply(resource, obj, force=force)

    async def apply_status(self, resource, obj):
        self._note("status", resource, obj["metadata"]["name"])
        return await self.cluster.apply_status(resource, obj)

    async def delete(self, resource, namespace, name, *, uid):
        self._note("delete", resource, name)
        await self.cluster.delete(resource, namespace, name, uid=uid)

    def take_writes(self):
        """The writes since this was last asked."""
        writes, self.writes = self.writes, []
        return writes

    def _note(self, verb, resource, name):
        self.writes.append((verb, resource.kind, name))
        if (verb, resource.kind) in self.refuse:
            raise self.refuse[verb, resource.kind]


@pytest.fixture
def recording():
    """Wraps a cluster so that its calls are noted."""
    return RecordingCluster
