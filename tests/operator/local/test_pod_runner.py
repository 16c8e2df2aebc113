"""A pod of small real processes behaves as under a kubelet: order, probes, restarts, status, and a clean end."""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from pagoda_operator.local.backoff import BackOff
from pagoda_operator.local.pod_runner import PodRunner

FAST = BackOff(first=0.01, limit=0.02, reset=60)
NEVER_AGAIN = BackOff(first=3600, limit=3600, reset=7200)


def pod_of(*containers: dict, init: tuple = (), **spec) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "a"}},
        "spec": {"containers": list(containers), **({"initContainers": list(init)} if init else {}), **spec},
    }


class Runs:
    """A running PodRunner with the statuses that it told."""

    def __init__(self, pod: dict, folder: Path, **options) -> None:
        self.told: list[dict] = []
        options = {"claims": lambda name: folder / "claims" / name, "environment": dict(os.environ)} | options
        self.runner = PodRunner(pod, folder=folder, pod_ip="127.0.0.1", on_status=self.tell, **options)

    async def tell(self, status: dict) -> None:
        self.told.append(status)

    @property
    def now(self) -> dict:
        return self.told[-1] if self.told else {}

    def container(self, name: str = "c") -> dict:
        statuses = [*self.now.get("initContainerStatuses", ()), *self.now.get("containerStatuses", ())]
        return next((status for status in statuses if status["name"] == name), {})

    def condition(self, type_: str) -> dict:
        return next((c for c in self.now.get("conditions", ()) if c["type"] == type_), {})

    def ready(self) -> bool:
        return self.condition("Ready").get("status") == "True"


@asynccontextmanager
async def running(pod: dict, folder: Path, *, grace: float = 5, **options):
    runs = Runs(pod, folder, **options)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runs.runner.run())
        try:
            yield runs
        finally:
            await runs.runner.stop(grace)
        await task


async def finished(pod: dict, folder: Path, **options) -> Runs:
    """Run a pod to its own end."""
    runs = Runs(pod, folder, **options)
    async with asyncio.timeout(30):
        await runs.runner.run()
    return runs


def http_probe(port: int, path: str, **numbers) -> dict:
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 0.05, "timeoutSeconds": 5, **numbers}


async def test_init_containers_run_in_order_before_the_main_ones(pod_folder, python, tmp_path):
    journal = tmp_path / "journal"

    def note(name: str) -> dict:
        code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
        return {"name": name, "command": python(code, str(journal), name)}

    runs = await finished(pod_of(note("c"), init=(note("a"), note("b")), restartPolicy="Never"), pod_folder)
    assert journal.read_text() == "abc"
    assert runs.now["phase"] == "Succeeded"
    assert runs.condition("Initialized")["status"] == "True"
    assert [status["ready"] for status in runs.now["initContainerStatuses"]] == [True, True]
    assert runs.told[0]["phase"] == "Pending"
    assert runs.told[0]["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


async def test_failing_init_container_of_a_never_pod_fails_the_pod_and_starts_nothing_else(pod_folder, python):
    init = {"name": "i", "command": python("raise SystemExit(11)")}
    runs = await finished(pod_of({"name": "c", "command": python("")}, init=(init,), restartPolicy="Never"), pod_folder)
    assert runs.now["phase"] == "Failed"
    assert runs.container("i")["state"]["terminated"]["exitCode"] == 11
    assert "waiting" in runs.container("c")["state"]


async def test_failing_init_container_is_tried_again_until_it_succeeds(pod_folder, python, tmp_path):
    code = "import os, sys; n = len(os.listdir(sys.argv[1])); open(f'{sys.argv[1]}/{n}', 'w'); raise SystemExit(n < 2)"
    tries = tmp_path / "tries"
    tries.mkdir()
    init = {"name": "i", "command": python(code, str(tries))}
    pod = pod_of({"name": "c", "command": python("")}, init=(init,), restartPolicy="OnFailure")
    runs = await finished(pod, pod_folder, backoff=FAST)
    assert runs.container("i")["restartCount"] == 2
    assert runs.container("i")["lastState"]["terminated"]["exitCode"] == 1
    assert runs.now["phase"] == "Succeeded"


async def test_readiness_follows_the_probe_and_moves_the_ready_condition(pod_folder, server_command, free_port, until):
    probe = http_probe(free_port, "/ready", failureThreshold=2)
    async with running(pod_of({"name": "c", "command": server_command, "readinessProbe": probe}), pod_folder) as runs:
        await until(runs.ready)
        assert runs.now["phase"] == "Running"
        (pod_folder / "unready").touch()
        await until(lambda: not runs.ready())
        assert runs.condition("Ready")["message"] == "containers with unready status: [c]"
        (pod_folder / "unready").unlink()
        await until(runs.ready)
        assert runs.container()["restartCount"] == 0


async def test_startup_probe_gates_the_others(pod_folder, server_command, free_port, until):
    """A sick engine that has not started yet is not killed by its liveness probe, and not ready either."""
    (pod_folder / "unready").touch()
    (pod_folder / "sick").touch()
    container = {
        "name": "c",
        "command": server_command,
        "startupProbe": http_probe(free_port, "/ready", failureThreshold=1000),
        "livenessProbe": http_probe(free_port, "/health", failureThreshold=1),
        "readinessProbe": http_probe(free_port, "/"),
    }
    async with running(pod_of(container), pod_folder) as runs:
        await until(lambda: "running" in runs.container().get("state", {}))
        await asyncio.sleep(1)
        assert (runs.container()["started"], runs.ready(), runs.container()["restartCount"]) == (False, False, 0)
        (pod_folder / "sick").unlink()
        (pod_folder / "unready").unlink()
        await until(runs.ready)
        assert runs.container()["started"]


@pytest.fixture
async def health():
    """A port that has always been listened on; its answers are 503 while `sick` is True."""
    state = SimpleNamespace(sick=True)

    async def answer(request):
        return web.Response(status=503 if state.sick else 200)

    app = web.Application()
    app.router.add_get("/health", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.port = runner.addresses[0][1]
    yield state
    await runner.cleanup()


@pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe"])
async def test_failing_probe_restarts_the_container(kind, pod_folder, python, health, until):
    container = {
        "name": "c",
        "command": python("import time; time.sleep(1000)"),
        kind: http_probe(health.port, "/health", failureThreshold=5, periodSeconds=0.2),
    }
    async with running(pod_of(container), pod_folder, backoff=NEVER_AGAIN) as runs:
        await until(lambda: runs.container().get("restartCount") == 1)
        health.sick = False
        await until(lambda: runs.container()["started"])
        assert "terminated" in runs.container()["lastState"]


async def test_crash_loop_is_told_with_exit_code_and_last_words(pod_folder, python, until):
    code = "print('x' * 5000); print('no such model'); raise SystemExit(10)"
    container = {"name": "c", "command": python(code), "terminationMessagePolicy": "FallbackToLogsOnError"}
    async with running(pod_of(container), pod_folder, backoff=NEVER_AGAIN) as runs:
        await until(lambda: "waiting" in runs.container().get("state", {}) and runs.container()["lastState"])
        waiting, last = runs.container()["state"]["waiting"], runs.container()["lastState"]["terminated"]
        assert waiting["reason"] == "CrashLoopBackOff"
        assert waiting["message"] == "back-off 3600s restarting failed container=c"
        assert runs.container()["restartCount"] == 1, "the first restart comes at once"
        assert (last["exitCode"], last["reason"]) == (10, "Error")
        assert last["message"].endswith("xx\nno such model")
        assert len(last["message"].encode()) <= 2048
        assert runs.now["phase"] == "Running"
        assert runs.runner.log_path("c").name == "1.log"


async def test_no_message_is_taken_from_the_log_without_the_policy(pod_folder, python):
    container = {"name": "c", "command": python("raise SystemExit('words')")}
    runs = await finished(pod_of(container, restartPolicy="Never"), pod_folder)
    assert runs.now["phase"] == "Failed"
    assert "message" not in runs.container()["state"]["terminated"]


async def test_death_by_signal_is_128_and_the_signal(pod_folder, python):
    container = {"name": "c", "command": python("import os; os.kill(os.getpid(), 9)")}
    runs = await finished(pod_of(container, restartPolicy="Never"), pod_folder)
    assert runs.container()["state"]["terminated"]["exitCode"] == 137


async def test_command_that_is_not_there_says_so(pod_folder):
    container = {"name": "c", "command": ["no-such-command"], "terminationMessagePolicy": "FallbackToLogsOnError"}
    runs = await finished(pod_of(container, restartPolicy="Never"), pod_folder)
    terminated = runs.container()["state"]["terminated"]
    assert terminated["exitCode"] == 127
    assert terminated["message"].startswith("no-such-command: command not found")


async def test_stop_lets_the_process_end_by_itself(pod_folder, server_command, free_port, until):
    probe = http_probe(free_port, "/ready")
    async with running(
        pod_of({"name": "c", "command": server_command, "readinessProbe": probe}), pod_folder, grace=60
    ) as runs:
        await until(runs.ready)
    assert (pod_folder / "terminated").exists()
    assert runs.container()["state"]["terminated"]["exitCode"] == 0
    assert not runs.ready()


async def test_stop_kills_the_whole_group_after_the_grace_period(pod_folder, python, until, tmp_path, alive):
    """A container that ignores SIGTERM, and its child, are gone after `stop`."""
    code = (
        "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN); child = os.fork();"
        "child and open(sys.argv[1], 'w').write(f'{os.getpid()} {child} '); time.sleep(1000)"
    )
    pids = tmp_path / "pids"
    container = {"name": "c", "command": python(code, str(pids))}
    async with running(pod_of(container), pod_folder, grace=0.2) as runs:
        await until(lambda: pids.exists() and pids.read_text().endswith(" "))
    assert runs.container()["state"]["terminated"]["exitCode"] == 137
    await until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


async def test_second_stop_with_a_shorter_grace_period_wins(pod_folder, python, until):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(1000)"
    runs = Runs(pod_of({"name": "c", "command": python(code)}), pod_folder)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(runs.runner.run())
        await until(lambda: runs.container().get("started") and runs.runner.log_path("c").read_text() == "up\n")
        patient = group.create_task(runs.runner.stop(3600))
        await asyncio.sleep(0.1)
        assert not patient.done()
        await runs.runner.stop(0)
    assert runs.container()["state"]["terminated"]["exitCode"] == 137


async def test_stop_during_back_off_starts_nothing_any_more(pod_folder, python, until):
    container = {"name": "c", "command": python("raise SystemExit(1)")}
    async with running(pod_of(container), pod_folder, backoff=NEVER_AGAIN) as runs:
        await until(lambda: runs.container().get("lastState") and "waiting" in runs.container()["state"])
    assert runs.container()["restartCount"] == 1


async def test_cancelled_runner_leaves_no_process_and_no_volume(pod_folder, server_command, free_port, until):
    container = {
        "name": "c",
        "command": server_command,
        "readinessProbe": http_probe(free_port, "/ready"),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    runs = Runs(pod_of(container, volumes=[{"name": "tmp", "emptyDir": {}}]), pod_folder)
    task = asyncio.create_task(runs.runner.run())
    await until(runs.ready)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (pod_folder / "volumes").exists()
    assert not (pod_folder / "terminated").exists(), "killed, not asked"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_containers_die_with_a_runner_that_is_killed(pod_folder, python, until, tmp_path, alive):
    """SIGKILL to the process that runs the pod, which can't clean up, ends the container too."""
    pid_file = tmp_path / "pid"
    container = python("import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(1000)")
    program = f"""
import asyncio, pathlib
from pagoda_operator.local.pod_runner import PodRunner
async def tell(status): pass
pod = {pod_of({"name": "c", "command": [*container, str(pid_file)]})!r}
folder = pathlib.Path({str(pod_folder)!r})
asyncio.run(PodRunner(pod, folder=folder, pod_ip="127.0.0.1", claims=lambda n: folder, on_status=tell).run())
"""
    runner = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    try:
        await until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    finally:
        runner.kill()
        await runner.wait()
    await until(lambda: not alive(int(pid_file.read_text())))


async def test_mounts_variables_and_scratch_reach_the_process(pod_folder, python):
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    container = {
        "name": "c",
        "command": python(code, "--dir", "/models", "--host=$(POD_IP)", "$$(POD_IP)", "$(NONE)", "hf://models/x"),
        "args": ["--cache=/tmp/cache", "/tmpfile"],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOME", "value": "/tmp"},
            {"name": "URL", "value": "http://$(POD_IP):1"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        ],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [
        {"name": "models", "persistentVolumeClaim": {"claimName": "cache"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    runs = await finished(
        pod_of(container, volumes=volumes, restartPolicy="Never"),
        pod_folder,
        secrets=lambda name, key: "secret" if (name, key) == ("s", "k") else None,
        environment={"PATH": os.environ["PATH"], "FROM_IMAGE": "/tmp"},
    )
    argv, environ = json.loads(runs.runner.log_path("c").read_text())
    scratch, models = f"{pod_folder}/volumes/tmp", f"{pod_folder}/claims/cache"
    assert argv == [
        "--dir",
        models,
        "--host=127.0.0.1",
        "$(POD_IP)",
        "$(NONE)",
        "hf://models/x",
        f"--cache={scratch}/cache",
        "/tmpfile",
    ]
    expected = {
        "POD_IP": "127.0.0.1",
        "HOME": scratch,
        "TMPDIR": scratch,
        "URL": "http://127.0.0.1:1",
        "TOKEN": "secret",
        "APP": "a",
        "FROM_IMAGE": "/tmp",
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert "MAYBE" not in environ


async def test_missing_secret_is_a_waiting_state_with_its_name(pod_folder, python, until):
    env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    async with running(pod_of({"name": "c", "command": python(""), "env": env}), pod_folder) as runs:
        await until(lambda: runs.container().get("state", {}).get("waiting", {}).get("message"))
        assert runs.container()["state"]["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": "secret 'hub' with key 'token' not found",
        }


async def test_prefix_stands_before_the_command(pod_folder, python):
    pod = pod_of({"name": "c", "command": python("import os; print(os.environ['MARK'])")}, restartPolicy="Never")
    runs = await finished(pod, pod_folder, command_prefix=["env", "MARK=through"])
    assert runs.runner.log_path("c").read_text() == "through\n"


@pytest.mark.parametrize(
    ("container", "volumes", "words"),
    [
        ({"name": "c"}, [], "names no command"),
        ({"name": "c", "command": ["x"], "livenessProbe": {"exec": {}}}, [], "no httpGet"),
        ({"name": "c", "command": ["x"], "livenessProbe": {"httpGet": {"port": "web"}}}, [], "names port 'web'"),
        ({"name": "c", "command": ["x"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}, [], "names 'v'"),
        ({"name": "c", "command": ["x"]}, [{"name": "v", "configMap": {}}], "'v' is configMap"),
    ],
)
def test_pod_that_cannot_be_run_here_is_refused_by_name(container, volumes, words, pod_folder):
    with pytest.raises(ValueError, match=words):
        Runs(pod_of(container, volumes=volumes), pod_folder)


async def test_failing_status_callback_ends_the_pod_and_is_raised(pod_folder, server_command):
    async def tell(status: dict) -> None:
        if "running" in status["containerStatuses"][0]["state"]:
            raise RuntimeError("nobody listens")

    runner = PodRunner(
        pod_of({"name": "c", "command": server_command}),
        folder=pod_folder,
        pod_ip="127.0.0.1",
        claims=lambda name: pod_folder,
        on_status=tell,
    )
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="nobody listens")):
        await runner.run()
