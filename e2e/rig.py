"""An operator of the harness behind a fault proxy, serving one namespace, and what users do in it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from e2e.api import ApiError, Object
from e2e.cluster import POLL_SECONDS, Cluster
from e2e.convergence import PATHS, SCALED_OBJECTS, look, problems, remains
from e2e.fault_proxy import FaultProxy
from e2e.faults import Rule
from e2e.operator_process import OperatorProcess, token_of, write_kubeconfig
from e2e.release import NAME, NAMESPACE, Release, namespace
from e2e.services import service

CONVERGED_SECONDS = 60.0


class Rig:
    """A context manager. `operator` and `proxy` are there once it is entered; `name` is the namespace."""

    def __init__(
        self,
        cluster: Cluster,
        release: Release,
        hub: str,
        name: str,
        *flags: str,
        account: str = NAME,
        everywhere: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`everywhere` has the operator serve the whole cluster; `account` is in the release's namespace."""
        self.cluster = cluster
        self.name = name
        self.account = account
        self.folder: Path = cluster.folder / f"rig-{name}"
        self._flags = (*(() if everywhere else ("--namespace", name)), *(flags or ("--no-leader-elect",)))
        self._settings = release.settings()
        self._environment = {
            "HF_ENDPOINT": hub,
            "NO_PROXY": f"{cluster.network.gateway},127.0.0.1,localhost",
            "no_proxy": f"{cluster.network.gateway},127.0.0.1,localhost",
            **(environment or {}),
        }
        self._exits = AsyncExitStack()

    @property
    def user(self) -> str:
        """The operator's name to the API server."""
        return f"system:serviceaccount:{NAMESPACE}:{self.account}"

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "settings.yaml").write_text(self._settings)
        self.make_namespace()
        self.cluster.run(self._start())
        self.cluster.eventually(lambda: self.cluster.run(self.operator.ready()), "the operator has read the cluster")
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.run(self._exits.aclose())
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")

    def make_namespace(self) -> None:
        self.cluster.make_namespace(namespace(self.name))

    async def _start(self) -> None:
        plane, gateway = self.cluster.control_plane, self.cluster.network.gateway
        self.proxy = await self._exits.enter_async_context(FaultProxy(plane.url, plane.ca, gateway, self.folder))
        self.operator = await self._operate("operator")

    async def _operate(self, name: str) -> OperatorProcess:
        kubeconfig = self.folder / f"{name}.kubeconfig"
        token = await token_of(self.cluster.api, NAMESPACE, self.account)
        write_kubeconfig(kubeconfig, token, self.proxy.url, self.proxy.certificate)
        flags = (*self._flags, "--settings", str(self.folder / "settings.yaml"), "--log-level", "debug")
        process = OperatorProcess(self.folder / f"{name}.log", kubeconfig, self._environment, *flags)
        return await self._exits.enter_async_context(process)

    def second_operator(self) -> OperatorProcess:
        """Another one beside the first, behind the same proxy."""
        return self.cluster.run(self._operate("second"))

    # --- the weather -------------------------------------------------------------------------------------------------

    def weather(self, *rules: Rule) -> None:
        """From now on these rules spoil the operator's calls; without any, the weather is good and watches live."""
        self.proxy.struck.clear()
        self.proxy.rules = rules
        if not rules:
            self.strike(self.proxy.clear)

    def strike(self, blow: Callable[[], None]) -> None:
        """Have `proxy.cut`, `proxy.expire` or `proxy.silence` done."""

        async def do() -> None:
            blow()

        self.cluster.run(do())

    def until_struck(self, times: int, verbs: Collection[str], *, seconds: float = 30) -> None:
        """Wait until so many calls of these verbs have gone wrong since the weather changed. Raises TimeoutError."""
        struck = self.proxy.struck
        self.cluster.eventually(
            lambda: sum(struck[verb] for verb in verbs) >= times,
            f"{times} calls of {', '.join(verbs)} went wrong",
            seconds=seconds,
        )

    # --- what users do, who are not behind the proxy -----------------------------------------------------------------

    def apply(self, name: str, **spec: Any) -> None:
        """Make a service whose pods, if it has any, fit no node."""
        wanted = {"replicas": 0, "engine": {"maxNumSeqs": 8}, "nodeSelector": {"pool": "none"}, **spec}
        body = service(name, self.name, **wanted)
        self.create("InferenceService", body)

    def create(self, kind: str, body: Object) -> None:
        self._call(self.cluster.api.create(self._path(kind), body), 409)

    def edit(self, name: str, **spec: Any) -> None:
        self.patch("InferenceService", name, {"spec": spec})

    def patch(self, kind: str, name: str, body: Object) -> None:
        self._call(self.cluster.api.patch(f"{self._path(kind)}/{name}", body), 404)

    def delete(self, kind: str, name: str) -> None:
        self._call(self.cluster.api.delete(f"{self._path(kind)}/{name}"), 404)

    def get(self, kind: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        return self._call(self.cluster.api.get(f"{self._path(kind)}/{name}"), 404)

    def ready(self, name: str) -> Object:
        """The condition Ready, or an empty one."""
        found = self.get("InferenceService", name) or {}
        return next((c for c in found.get("status", {}).get("conditions", ()) if c["type"] == "Ready"), {})

    # --- what is asked afterwards ------------------------------------------------------------------------------------

    def converge(self, *, seconds: float = CONVERGED_SECONDS) -> float:
        """Wait until nothing is wrong in the namespace; returns how long that took. Raises AssertionError."""
        return self._wait_until_nothing(problems, seconds)

    def vanish(self, *, seconds: float = CONVERGED_SECONDS) -> float:
        """Wait until nothing of the operator's is left in the namespace. Raises AssertionError."""
        return self._wait_until_nothing(remains, seconds)

    def _wait_until_nothing(self, ask: Callable[[Any], list[str]], seconds: float) -> float:
        start, told = time.monotonic(), [""]
        while True:
            self.cluster.check()
            wrong = ask(self.cluster.run(look(self.cluster.api, self.name)))
            took = time.monotonic() - start
            if wrong != told:
                print(f"{self.name} after {took:.1f} s: {'; '.join(wrong) or 'all is well'}")
            told = wrong
            if not wrong:
                return took
            if took > seconds:
                log = "\n".join(self.operator.log.read_text().splitlines()[-80:])
                raise AssertionError(f"after {took:.0f} s:\n" + "\n".join(wrong) + f"\n--- the operator's log\n{log}")
            time.sleep(POLL_SECONDS)

    def _call(self, call: Coroutine[Any, Any, Any], passed_over: int | None = None) -> Any:
        """Its result; None for a refusal of the code that is passed over. Raises ApiError."""
        try:
            return self.cluster.run(call)
        except ApiError as error:
            if error.code != passed_over:
                raise
            return None

    def _path(self, kind: str) -> str:
        return {**PATHS, "ScaledObject": SCALED_OBJECTS}[kind].format(self.name)
