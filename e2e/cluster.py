"""A whole cluster for one run of the tests: control plane, nodes, volumes, network; and what a test does with it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
from e2e.api import Api, Object
from e2e.background import Background
from e2e.binaries import Binaries
from e2e.control_plane import HPA_SYNC, ControlPlane
from e2e.dns import ClusterDns
from e2e.egress import EgressProxy
from e2e.informer import Informer
from e2e.network import PodNetwork
from e2e.node_agent import NodeAgent, PodRecord
from e2e.nodes import Machine
from e2e.provisioner import Provisioner
from e2e.service_proxy import ServiceProxy

ROOT = Path("/var/tmp")
"""Not /tmp: pods have their own /tmp mounted over that."""
PREFIX = "pagoda-e2e-"
POLL_SECONDS = 0.2
INHERITED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_INDEX_URL", "PYTHONPATH", "TZ")
"""Variables that an image of this machine would hold: whom it trusts, and where its packages come from and lie."""

Found = TypeVar("Found")


class KubectlError(Exception):
    """kubectl ended with another code than 0; the text is what it said."""


class Cluster:
    """Starts in the constructor; `close` leaves nothing of it behind. One at a time in a process."""

    def __init__(self, binaries: Binaries, hpa_sync: str = HPA_SYNC) -> None:
        self.binaries = binaries
        self._hpa_sync = hpa_sync
        self.folder = Path(tempfile.mkdtemp(dir=ROOT, prefix=f"{PREFIX}{os.getpid()}-"))
        self.folder.chmod(0o755)
        self._exits = ExitStack()
        self._exits.callback(shutil.rmtree, self.folder)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        with _one_at_a_time():
            remove_left_behind()
            self.network = PodNetwork()
        self._exits.callback(self.network.close)
        self.control_plane = ControlPlane(
            self.binaries, self.folder / "control-plane", self.network.gateway, self._hpa_sync
        )
        self._exits.callback(self.control_plane.stop)
        self._background = self._exits.enter_context(Background())
        self.api = Api(self.control_plane.url, self.control_plane.admin_token, self.control_plane.ca)
        self._background.enter(self.api)
        self.egress = EgressProxy(self.network.gateway)
        self._background.enter(self.egress)
        pagoda = [str(Path(sys.prefix) / "bin" / "pagoda")]
        self.agent = NodeAgent(
            self.api,
            self.network,
            self.folder,
            environment=self._environment(),
            entrypoints={"pagoda-operator": pagoda, "pagoda-engine": pagoda},
        )
        self._background.start("node agent", self.agent.run())
        self._background.start("cluster DNS", ClusterDns(self.api, self.network.gateway).run())
        self._background.start("provisioner", Provisioner(self.api, self.folder / "volumes").run())

    def check(self) -> None:
        """Raises RuntimeError where a part of the harness has ended."""
        self._background.check()

    def close(self) -> None:
        """End everything, the last started first; an error does not keep the rest from ending."""
        self._exits.close()

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PATH": path,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            # The GPUs that nodes claim to have are labels: where this machine has some, pods don't use them.
            "CUDA_VISIBLE_DEVICES": "",
            "KUBERNETES_SERVICE_HOST": self.network.gateway,
            "KUBERNETES_SERVICE_PORT": str(self.control_plane.port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self.control_plane.port),
        }

    def run(self, coroutine: Coroutine[Any, Any, Found], *, seconds: float = 60) -> Found:
        """The result of a coroutine in the harness' own loop, in which `api` lives."""
        return self._background.run(coroutine, seconds=seconds)

    def add_node(self, machine: Machine) -> None:
        self._background.run(self.agent.add(machine))

    def remove_node(self, name: str) -> None:
        self._background.run(self.agent.remove(name))

    def make_namespace(self, namespace: Object) -> None:
        """Until pods can be made in it: the account that they need comes from a controller."""
        self.apply(namespace)
        name = namespace["metadata"]["name"]
        accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
        self.eventually(lambda: self.run(self.api.get(accounts))["items"], f"namespace {name} has an account for pods")

    def send(self, pod: str, number: signal.Signals) -> bool:
        """A signal to all processes of the pod of that name; returns whether it has any."""
        sent = False
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.environ().get("HOSTNAME") == pod:
                    process.send_signal(number)
                    sent = True
        return sent

    @contextmanager
    def standing_still(self, pod: str) -> Iterator[None]:
        """All processes of the pod of that name are stopped inside, from when it has any."""
        try:
            self.eventually(lambda: self.send(pod, signal.SIGSTOP), f"pod {pod} has processes")
            yield
        finally:
            self.send(pod, signal.SIGCONT)

    def kubectl(self, *arguments: str, text: str | None = None, seconds: float = 120) -> str:
        """What kubectl prints, as administrator. Raises KubectlError."""
        return self._checked([str(self.binaries.kubectl), *arguments], text, seconds)

    def helm(self, *arguments: str, seconds: float = 180) -> str:
        return self._checked([str(self.binaries.helm), *arguments], None, seconds)

    def apply(self, *objects: Object) -> None:
        """`kubectl apply`. Raises KubectlError with the API server's refusal."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, *arguments: str) -> Object:
        """One object, or a List."""
        return dict(json.loads(self.kubectl("get", *arguments, "-o", "json")))

    def find(self, *arguments: str) -> Object | None:
        """One object, or None where it is not there."""
        output = self.kubectl("get", *arguments, "--ignore-not-found", "-o", "json")
        return json.loads(output) if output.strip() else None

    def objects(self, *arguments: str) -> list[Object]:
        """The items of a List."""
        return list(self.get(*arguments)["items"])

    def eventually(self, look: Callable[[], Found | None], what: str, *, seconds: float = 60) -> Found:
        """The first thing that `look` finds, asked again until it does. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            if found := look():
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
            time.sleep(POLL_SECONDS)

    @contextmanager
    def proxy(self, namespace: str, service: str, port: str = "http") -> Iterator[str]:
        """The URL of a Service, as kube-proxy would let one reach it."""
        proxy = ServiceProxy(self.api, namespace, service, port)
        self._background.run(proxy.start())
        try:
            yield proxy.url
        finally:
            self._background.run(proxy.stop())

    def follow(self, path: str, on_change: Callable[[Object, bool], None]) -> Informer:
        """The collection at `path` until the end; `on_change` is called in the harness' own thread."""
        informer = Informer(self.api, path, on_change)
        self._background.start(f"informer of {path}", informer.run())
        self._background.run(informer.synced())
        return informer

    def records(self, namespace: str, prefix: str = "") -> list[PodRecord]:
        """The pods that ran so far, the oldest first."""
        return [r for r in self.agent.records if r.namespace == namespace and r.name.startswith(prefix)]

    def _checked(self, command: list[str], text: str | None, seconds: float) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.control_plane.kubeconfig), **self._tool_folders()}
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=seconds, env=environment, check=False
        )
        if done.returncode != 0:
            raise KubectlError(f"{Path(command[0]).name} {' '.join(command[1:])}:\n{done.stderr.strip()}")
        return done.stdout

    def _tool_folders(self) -> dict[str, str]:
        """Where kubectl and helm keep their caches: with us, not in the user's home."""
        home = self.folder / "home"
        return {
            "KUBECACHEDIR": f"{home}/kube",
            **{f"HELM_{k}_HOME": f"{home}/helm" for k in ("CACHE", "CONFIG", "DATA")},
        }


def left_behind(pid: int | None = None) -> list[Path]:
    """Folders of runs whose process is gone, or of the given process."""
    found = []
    for folder in ROOT.glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if (pid is None and not Path(f"/proc/{owner}").exists()) or owner == str(pid):
            found.append(folder)
    return found


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of the harnesses on this machine: they clear away the same things, and choose of the same addresses."""
    root = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(root, fcntl.LOCK_EX)
        yield
    finally:
        os.close(root)


def remove_left_behind() -> None:
    for folder in left_behind():
        shutil.rmtree(folder)
