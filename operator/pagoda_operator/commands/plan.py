"""`pagoda plan`: what an InferenceService would become, without a cluster.

Manifests go to stdout, to be piped into `kubectl diff` or a file; the arithmetic and what was rejected go to stderr.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from pagoda_engine.contract import ExitCode, ModelFacts
from pagoda_operator.api.names import KIND, Object
from pagoda_operator.api.validation import validate
from pagoda_operator.core.facts import Facts
from pagoda_operator.core.plan import Plan, plan
from pagoda_operator.core.settings import Settings
from pagoda_operator.planner.nodes import Node

INSPECT: Final = (sys.executable, "-m", "pagoda_engine.cli", "inspect")
"""Reads a model's facts; a process of its own, so that the operator imports nothing of the engine."""

DRY_RUN_UID: Final = "00000000-0000-0000-0000-000000000000"


class Refusal(Exception):
    """Why there is no plan: one line, and the exit code to end with."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


def main(argv: Sequence[str]) -> int:
    """Run `pagoda plan ARGV`. Exit codes: 0 with a plan, 1 where nothing can be planned, 2 for unusable input, and
    those of `pagoda inspect` where the model can't be read."""
    options = parser().parse_args(list(argv))
    try:
        services = _services(options.filename)
        nodes = _nodes(options.nodes) if options.nodes else ()
        settings = Settings.load(options.settings) if options.settings else Settings()
        plans = [_plan(service, nodes, options.model_facts, settings) for service in services]
    except (Refusal, OSError, ValueError) as error:
        print(f"pagoda plan: error: {error}", file=sys.stderr)
        return error.code if isinstance(error, Refusal) else ExitCode.USAGE
    for service, result in zip(services, plans, strict=True):
        print(_explanation(service, result), file=sys.stderr)
    manifests = [child for result in plans for child in result.apply]
    print(yaml.safe_dump_all(manifests, sort_keys=False, width=120), end="")
    return ExitCode.OK if manifests else ExitCode.CRASHED


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="pagoda plan", description="Show what InferenceServices would become.", allow_abbrev=False
    )
    parser.add_argument("-f", "--filename", type=Path, required=True, help="YAML file with InferenceServices")
    parser.add_argument("--nodes", type=Path, help="`kubectl get nodes -o yaml`; default: no node has a GPU")
    parser.add_argument("--model-facts", type=Path, help="output of `pagoda inspect`; default: read the model's URI")
    parser.add_argument("--settings", type=Path, help="the operator's settings, YAML or JSON; default: the defaults")
    return parser


def _services(path: Path) -> list[Object]:
    services = [document for document in _documents(path) if document.get("kind") == KIND]
    if not services:
        raise Refusal(f"{path} holds no {KIND}; see examples/")
    problems = [problem for service in services for problem in validate(service)]
    if problems:
        raise Refusal(f"{path}: {'; '.join(problems)}")
    # What the API server would have added.
    for service in services:
        service["metadata"].setdefault("namespace", "default")
        service["metadata"].setdefault("uid", DRY_RUN_UID)
        service.pop("status", None)
    return services


def _nodes(path: Path) -> tuple[Node, ...]:
    items = [item for document in _documents(path) for item in document.get("items", [document])]
    nodes = tuple(Node.of(item) for item in items if item.get("kind", "Node") == "Node" and "metadata" in item)
    if not nodes:
        raise Refusal(f"{path} holds no Node; write one with `kubectl get nodes -o yaml`")
    return nodes


def _documents(path: Path) -> list[dict[str, Any]]:
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except yaml.YAMLError as error:
        raise Refusal(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return [document for document in documents if isinstance(document, dict)]


def _plan(service: Object, nodes: tuple[Node, ...], facts_file: Path | None, settings: Settings) -> Plan:
    uri = service["spec"]["model"]["uri"]
    text = facts_file.read_text() if facts_file else _inspect(uri)
    facts = Facts(now=datetime.now(UTC), model=ModelFacts.from_json(text), nodes=nodes)
    return plan(service, facts, settings)


def _inspect(uri: str) -> str:
    """The facts' JSON. Raises Refusal with the command's own words, which name the fix, and its exit code."""
    done = subprocess.run([*INSPECT, uri], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    words = done.stderr.strip().splitlines() or [f"pagoda inspect {uri} ended with exit code {done.returncode}"]
    code = ExitCode(done.returncode) if done.returncode in set(ExitCode) else ExitCode.CRASHED
    raise Refusal(words[-1].removeprefix("pagoda inspect: error: "), code)


def _explanation(service: Object, result: Plan) -> str:
    planned = next(c for c in result.status["conditions"] if c["type"] == "Planned")
    lines = [f"{service['metadata']['name']}: {planned['reason']}: {planned['message']}"]
    lines += [f"  {line}" for line in result.status.get("plan", {}).get("arithmetic", [])]
    lines += [f"  rejected {line}" for line in result.status.get("rejected", [])]
    return "\n".join(lines)
