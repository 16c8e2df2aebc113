"""The chart as the real Helm renders it.

Helm is looked for on PATH and where `make e2e` puts it. Where there is none the tests of this folder are skipped, and
pytest's summary says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "pagoda"


def _helm() -> str | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pagoda" / "tools"
    found = sorted(path for path in cache.glob("helm-*/helm") if path.is_file() and os.access(path, os.X_OK))
    return str(found[-1]) if found else shutil.which("helm")


@pytest.fixture(scope="session")
def helm(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `helm ARGUMENTS` with a home of its own."""
    binary = _helm()
    if binary is None:
        pytest.skip("no helm on PATH or in the cache folder; `make e2e` fetches one")
    home = tmp_path_factory.mktemp("helm")
    environment = {**os.environ, **{f"HELM_{kind}_HOME": str(home) for kind in ("CACHE", "CONFIG", "DATA")}}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


class Release:
    """The objects of one rendered release."""

    def __init__(self, objects: list[dict]) -> None:
        self.objects = objects

    def of(self, kind: str) -> list[dict]:
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> dict:
        found = [o for o in self.of(kind) if name is None or o["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects of kind {kind}, name {name}"
        return found[0]

    @property
    def container(self) -> dict:
        return self.one("Deployment")["spec"]["template"]["spec"]["containers"][0]

    @property
    def settings(self) -> str:
        return self.one("ConfigMap")["data"]["settings.yaml"]


@pytest.fixture
def refusal(helm, tmp_path) -> Callable[[dict], str]:
    """What Helm says of values that it must refuse."""

    def render(values: dict) -> str:
        file = tmp_path / "values.json"
        file.write_text(json.dumps(values))
        result = helm("template", "pagoda", str(CHART), "--values", str(file))
        assert result.returncode != 0, f"{values} was not refused"
        return result.stderr

    return render


@pytest.fixture
def release(helm, tmp_path) -> Callable[..., Release]:
    """`release(values, name=…)`: the chart rendered with values, in the namespace `system`."""

    def render(values: dict | None = None, *, name: str = "pagoda") -> Release:
        file = tmp_path / "values.json"
        file.write_text(json.dumps(values or {}))
        result = helm("template", name, str(CHART), "--namespace", "system", "--values", str(file))
        assert result.returncode == 0, result.stderr
        return Release([document for document in yaml.safe_load_all(result.stdout) if document])

    return render
