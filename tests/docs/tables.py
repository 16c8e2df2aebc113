"""Writes the tables of the documentation from the code that they describe.

    python tests/docs/tables.py            write them
    python tests/docs/tables.py --check    write nothing; exit 1 and show the difference where a table is stale

A table stands between two comments of a Markdown file, which says what is wanted there:

    <!-- table: engine-flags -->
    <!-- /table -->
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from pagoda_engine.contract import EngineArgs, ExitCode
from pagoda_engine.ipc.messages import Ready
from pagoda_engine.process.client import EngineClient
from pagoda_engine.server.metrics import Metrics
from pagoda_operator.api.crd import custom_resource_definition
from pagoda_operator.cluster.resources import INFERENCE_SERVICE
from pagoda_operator.commands.operator import parser as operator_parser
from pagoda_operator.controller.metrics import OperatorMetrics
from pagoda_operator.core.reasons import REASONS
from pagoda_operator.scaling.load import Load

REPOSITORY = Path(__file__).parents[2]
VALUES = REPOSITORY / "charts" / "pagoda" / "values.yaml"
OWN_LISTS = ("schedule", "policies")
"""Lists whose items are fields of ours to document."""

BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


# --- the engine ------------------------------------------------------------------------------------------------------


def engine_flags() -> str:
    """Every flag of `pagoda serve`."""
    return _flags(EngineArgs.parser())


def engine_metrics() -> str:
    """What a server's `/metrics` exposes, asked of a real registry."""
    args = EngineArgs(model="model")
    metrics = Metrics("model")
    metrics.watch(EngineClient(metrics, step_seconds=1.0))
    metrics.describe_cache(Ready("", "", {}, {}, vocab_size=1, max_model_len=1, num_blocks=1, block_size=1), args)
    metrics.http("GET", "/health", 200, 0.0)
    return _metrics(metrics.text())


def exit_codes() -> str:
    """How `pagoda serve` and `pagoda pull` end."""
    return _table(("Exit code", "Reason"), ((str(code.value), f"`{code.reason}`") for code in ExitCode))


def engine_families() -> str:
    """Kinds of models that run, by what they ask for; tests/engine/model/test_every_family.py holds it against each."""
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for family in _families().RUN:
        groups.setdefault(family.needs, ([], []))[not family.fused].append(f"`{family.model_type}`")
    rows = [(needs or "nothing special", *map(", ".join, groups[needs])) for needs in sorted(groups)]
    counts = (str(sum(len(group[path]) for group in groups.values())) for path in range(2))
    return _table(("What a layer needs", "On our kernels", "On transformers' layers"), [*rows, ("together", *counts)])


def engine_refusals() -> str:
    """Kinds of models that are refused at load, with the reason."""
    groups: dict[str, list[str]] = {}
    for refusal in _families().REFUSED:
        groups.setdefault(refusal.reason, []).extend(refusal.model_types.split())
    rows = [(reason, ", ".join(f"`{name}`" for name in sorted(names))) for reason, names in groups.items()]
    return _table(("Refused for", "`model_type`"), [*rows, ("together", str(sum(map(len, groups.values()))))])


def _families() -> ModuleType:
    """The data of the engine's tests: a module by its path, since tests are no package."""
    path = REPOSITORY / "tests" / "engine" / "model" / "families.py"
    spec = importlib.util.spec_from_file_location("families", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules["families"] = module  # where dataclasses look for the annotations' names
    spec.loader.exec_module(module)
    return module


# --- the operator ----------------------------------------------------------------------------------------------------


def operator_flags() -> str:
    """Every flag of `pagoda operator`, but for a default that is this machine's."""
    return _flags(operator_parser(), hide_defaults={"lease_namespace"})


def reasons() -> str:
    """Every reason of a condition, a failure or an Event."""
    return _table(("Reason", "Meaning"), ((f"`{reason}`", meaning) for reason, meaning in REASONS.items()))


def operator_metrics() -> str:
    """What the operator's `/metrics` exposes, asked of a real registry."""
    metrics = OperatorMetrics()
    metrics.reconciled("success", 0.0)
    metrics.called("list", INFERENCE_SERVICE, 200, 0.0)
    metrics.follow(depth=lambda: 0.0, longest=lambda: 0.0, services=lambda: 0.0)
    metrics.follow_watch(INFERENCE_SERVICE, lambda: 0.0)
    metrics.follow_loads(lambda: [("default/qwen", Load(waiting=0, running=0))])
    return _metrics(metrics.text())


def spec_fields() -> str:
    """Every field of `spec`."""
    return _table(("Field", "Type", "Default", "Meaning"), _fields(_schema()["properties"]["spec"], "spec"))


def status_fields() -> str:
    """Every field of `status`."""
    rows = ((field, type_, text) for field, type_, _, text in _fields(_schema()["properties"]["status"], "status"))
    return _table(("Field", "Type", "Meaning"), rows)


def refusals() -> str:
    """What the API server refuses beyond types and ranges, in its own words."""
    return _table(("Where", "Refusal"), _rules(_schema(), ""))


def columns() -> str:
    """What `kubectl get inferenceservices` prints."""
    version = custom_resource_definition()["spec"]["versions"][0]
    rows = ((column["name"], f"`{column['jsonPath']}`") for column in version["additionalPrinterColumns"])
    return _table(("Column", "From"), rows)


def _schema() -> dict[str, Any]:
    return custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        place = f"{path}.{name}"
        default = f"`{json.dumps(field['default'])}`" if "default" in field else "required" if name in required else ""
        yield f"`{place}`", _type(field), default, field.get("description", "") + _limits(field)
        yield from _fields(field, place)
        # Most lists of objects are Kubernetes' own words (env, tolerations, conditions): known, or looked up there.
        if name in OWN_LISTS:
            yield from _fields(field["items"], f"{place}[]")


def _type(field: Mapping[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    return str(field["type"])


def _limits(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f" {low} to {high}."
    return f" At least {low}." if low is not None else f" At most {high}." if high is not None else ""


def _rules(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"`{(path + rule.get('fieldPath', '')).lstrip('.') or 'metadata'}`", rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from _rules(schema["items"], f"{path}[]")


# --- the chart -------------------------------------------------------------------------------------------------------


def chart_values() -> str:
    """Every value of the chart with its comment in values.yaml."""
    return _table(("Value", "Default", "Meaning"), _values(VALUES.read_text()))


def _values(text: str) -> Iterator[tuple[str, str, str]]:
    """The keys of a values file that follow a `# --` comment and have no such key below them."""
    entry = re.compile(r"^(?P<indent> *)# -- (?P<comment>.*)\n(?P=indent)(?P<key>[A-Za-z]+):", re.MULTILINE)
    found: list[tuple[str, str]] = []
    stack: list[str] = []
    for match in entry.finditer(text):
        del stack[len(match["indent"]) // 2 :]
        stack.append(match["key"])
        found.append((".".join(stack), match["comment"]))
    values = yaml.safe_load(text)
    for place, comment in found:
        if not any(other.startswith(f"{place}.") for other, _ in found):
            value = values
            for key in place.split("."):
                value = value[key]
            yield f"`{place}`", f"`{json.dumps(value)}`", comment


# --- Markdown --------------------------------------------------------------------------------------------------------


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    head = tuple(head)
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)]) + "\n"


def _flags(parser: argparse.ArgumentParser, hide_defaults: Iterable[str] = ()) -> str:
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.dest.upper()}`"
        default = "" if action.default in (None, "", [], ()) or action.dest in hide_defaults else f"`{action.default}`"
        choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
        rows.append((names, default, (action.help or "") + choices))
    return _table(("Flag", "Default", "Meaning"), rows)


def _metrics(text: bytes) -> str:
    rows = []
    for family in text_string_to_metric_families(text.decode()):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, family.documentation))
    return _table(("Metric", "Type", "Meaning"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "chart-values": chart_values,
    "columns": columns,
    "engine-families": engine_families,
    "engine-flags": engine_flags,
    "engine-metrics": engine_metrics,
    "engine-refusals": engine_refusals,
    "exit-codes": exit_codes,
    "operator-flags": operator_flags,
    "reasons": reasons,
    "operator-metrics": operator_metrics,
    "refusals": refusals,
    "spec-fields": spec_fields,
    "status-fields": status_fields,
}


def rewritten(text: str) -> str:
    """A document with its tables made anew. Raises KeyError naming a table that there is none of."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match["name"]]() + match[3], text)


def documents() -> list[Path]:
    """The project's Markdown files."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := REPOSITORY / name).exists()]


def main(argv: list[str]) -> int:
    """Write the tables, or with `--check` compare them."""
    options = argparse.ArgumentParser(description="Write the tables of the documentation from the code.")
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table is stale")
    check = options.parse_args(argv).check
    stale = False
    for path in documents():
        old = path.read_text()
        new = rewritten(old)
        if old == new:
            continue
        stale = True
        if check:
            names = (str(path.relative_to(REPOSITORY)), "as the code has it (run `make docs`)")
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), *names, n=0))
        else:
            path.write_text(new)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
