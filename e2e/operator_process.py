"""The operator as a process of the harness, kept alive as a kubelet keeps a container: what a fault needs to be quick.

It has the chart's own ServiceAccount and settings, and reaches the API server by whatever address its kubeconfig has.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import yaml
from e2e.api import Api

from pagoda_operator.local import launcher

RESTART_SECONDS = 0.5
TOKEN_SECONDS = 3600 * 4
HOST = "127.0.0.1"
PORT = re.compile(rb"health, metrics and activation on port (\d+)")
"""How the operator tells in its log which port it was given."""


async def token_of(api: Api, namespace: str, account: str) -> str:
    """A token of a ServiceAccount."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    answer = await api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", request)
    return str(answer["status"]["token"])


def write_kubeconfig(path: Path, token: str, server: str, ca: Path) -> None:
    """For the API server as it is reached by `server`, whose certificate is or is signed by `ca`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "operator"}}],
        "current-context": "e2e",
    }
    path.write_text(yaml.safe_dump(document))


class OperatorProcess:
    """An async context manager: started when entered, started again whenever it ends, gone when left.

    `exits` are the exit codes so far, of those that ended by themselves or by our signals (negative, as Python tells).
    """

    def __init__(self, log: Path, kubeconfig: Path, environment: Mapping[str, str], *flags: str) -> None:
        self.log = log
        self.exits: list[int] = []
        self._began = 0  # where in the log the process that runs now has begun
        self._port: int | None = None
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._command = self._argv(kubeconfig, flags)
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    def _argv(self, kubeconfig: Path, flags: Sequence[str]) -> list[str]:
        tied = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid())]
        operator = [sys.executable, "-m", "pagoda_engine.cli", "operator", "--kubeconfig", str(kubeconfig)]
        return [*tied, *operator, "--health-host", HOST, "--health-port=0", *flags]

    async def __aenter__(self) -> OperatorProcess:
        self._keeper = asyncio.create_task(self._keep(), name="operator")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def send(self, number: signal.Signals) -> None:
        """A signal to the process, if one runs at the moment."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def ready(self) -> bool:
        """Whether /readyz says so."""
        return await self._ask("/readyz") is not None

    async def alive(self) -> bool:
        """Whether /healthz says so."""
        return await self._ask("/healthz") is not None

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of that name which have these labels; 0 where nobody answers."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = (await self._ask("/metrics") or "").splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found if all(label in line for label in wanted))

    async def _ask(self, path: str) -> str | None:
        """The body of a 200, or None."""
        limit = aiohttp.ClientTimeout(total=2)
        if self._port is None:
            told = PORT.search(self.log.read_bytes(), self._began)
            self._port = int(told[1]) if told else None
        with suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.request("GET", f"http://{HOST}:{self._port or 0}{path}", timeout=limit) as answer:
                return await answer.text() if answer.status == 200 else None
        return None

    async def _keep(self) -> None:
        while True:
            with self.log.open("ab") as output:
                self._began, self._port = output.tell(), None
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self._environment,
                    start_new_session=True,
                )
            try:
                self.exits.append(await self._process.wait())
            finally:
                if self._process.returncode is None:
                    await self._end(self._process)
            await asyncio.sleep(RESTART_SECONDS)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
