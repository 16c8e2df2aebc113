"""`pagoda operator` ends with one line that says what to do, and with the contract's exit code."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pagoda_engine.contract import ExitCode

RUN = (sys.executable, "-m", "pagoda_engine.cli", "operator")


def run(*argv, **environment):
    """Runs the real command; without KUBECONFIG and outside of any pod, unless told otherwise."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "POD_"))}
    return subprocess.run([*RUN, *argv], capture_output=True, text=True, timeout=120, env=kept | environment)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("engineImagee: x", "settings: unknown key 'engineImagee'"),
        ("enginePort: eight", "settings: enginePort is 'eight'"),
        ("[1, 2]", "it must be a mapping of settings"),
    ],
)
def test_settings_that_can_not_be_used_are_told(tmp_path, text, complaint):
    settings = tmp_path / "settings.yaml"
    settings.write_text(text)
    ended = run("--settings", str(settings))
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.startswith("pagoda operator: error: ")
    assert complaint in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_missing_settings_file_is_told():
    ended = run("--settings", "/nonexistent.yaml")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (ExitCode.USAGE, 1)
    assert "/nonexistent.yaml" in ended.stderr


def test_no_cluster_is_told_with_the_fix(tmp_path):
    ended = run("--kubeconfig", str(tmp_path / "none"))
    assert ended.returncode == ExitCode.CRASHED
    assert "name a file by --kubeconfig or KUBECONFIG" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--health-port", "--scaler-port", "--external-metrics-port"])
def test_a_port_that_is_taken_is_told_with_its_flag(tmp_path, flag):
    """Whichever of the servers can't listen: one line, and the contract's exit code."""
    settings, kubeconfig = tmp_path / "settings.yaml", tmp_path / "kubeconfig"
    settings.write_text("externalMetrics: true")
    # Nothing answers there, which is no reason not to listen.
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    document = {"clusters": [cluster], "contexts": [context], "users": [{"name": "c", "user": {}}]}
    kubeconfig.write_text(json.dumps({**document, "current-context": "c", "kind": "Config", "apiVersion": "v1"}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"--health-port": 0, "--scaler-port": 0, "--external-metrics-port": 0}
        ports[flag] = taken.getsockname()[1]
        flags = [f"{name}={port}" for name, port in ports.items()]
        where = ("--settings", str(settings), "--kubeconfig", str(kubeconfig), "--health-host=127.0.0.1")
        ended = run(*where, "--no-leader-elect", *flags)
    assert ended.returncode == ExitCode.PORT_IN_USE, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"pagoda operator: error: {flag}: ")


def test_every_flag_has_help():
    text = run("--help").stdout
    flags = ("--namespace", "--settings", "--kubeconfig", "--health-port", "--leader-elect", "--no-leader-elect")
    assert all(flag in text for flag in flags)


def test_kopf_stays_in_the_watch_module():
    """Everything else of the operator runs without it, which is what local mode and the tests do."""
    folder = Path(__file__).parents[3] / "operator" / "pagoda_operator"
    users = [path.name for path in folder.rglob("*.py") if "import kopf" in path.read_text()]
    assert users == ["watch.py"]
    script = "import json, sys, pagoda_operator.controller.run; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert not {"kopf", "kubernetes", "torch"} & set(loaded)
