"""Refusals that a structural schema can't express: each rule once in CEL for the API server and once in Python for
local mode, side by side. A table of bad services runs against both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MAX_NAME: Final = 50
"""Children's names are the service's and a suffix, and pods' get 17 characters more."""

NAME: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
HF_URI: Final = (
    r"^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._%+-]*)?(/[^/ ][^ ]*[.]gguf)?$"
)
PYPI_URI: Final = r"^pypi://[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._+!-]*)?/[^/ ][^ ]*[.]gguf$"

_CREDENTIALS: Final = ("bearer", "basic", "oauth")
"""Modes of authentication of which KEDA takes only one (pkg/scalers/authentication)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`cel` and `holds` judge the value at `path` (dotted, "" is the whole object), where there is one; `field` is the
    part of it that is to blame, relative to `path`."""

    path: str
    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str = ""


def _matches(pattern: str, text: str) -> bool:
    """As CEL's `matches` on our anchored patterns; Python's `$` alone would let a line feed pass at the end."""
    return re.fullmatch(pattern, text) is not None


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "",
        f"self.metadata.name.matches('{NAME}')",
        lambda service: _matches(NAME, service["metadata"]["name"]),
        "metadata.name must be a DNS-1035 label, since a Service is named after it: lower-case letters, digits and "
        "'-', starting with a letter, ending with a letter or digit (write llama-3-1-8b instead of llama-3.1-8b)",
    ),
    Rule(
        "",
        f"size(self.metadata.name) <= {MAX_NAME}",
        lambda service: len(service["metadata"]["name"]) <= MAX_NAME,
        f"metadata.name must have at most {MAX_NAME} characters, since pods are named after it",
    ),
    Rule(
        "spec.model",
        "self.uri.startsWith('hf://') || self.uri.startsWith('pypi://')",
        lambda model: model["uri"].startswith(("hf://", "pypi://")),
        "unknown URI scheme: use hf://ORG/REPO[@REVISION] or pypi://PACKAGE@VERSION/FILE.gguf",
        "uri",
    ),
    Rule(
        "spec.model",
        f"!self.uri.startsWith('hf://') || self.uri.matches('{HF_URI}')",
        lambda model: not model["uri"].startswith("hf://") or _matches(HF_URI, model["uri"]),
        "an hf:// URI is hf://ORG/REPO[@REVISION][/FILE.gguf], such as hf://Qwen/Qwen2.5-7B-Instruct; write a slash "
        "in a revision as %2F",
        "uri",
    ),
    Rule(
        "spec.model",
        f"!self.uri.startsWith('pypi://') || self.uri.matches('{PYPI_URI}')",
        lambda model: not model["uri"].startswith("pypi://") or _matches(PYPI_URI, model["uri"]),
        "a pypi:// URI is pypi://PACKAGE[@VERSION]/FILE.gguf, where FILE.gguf is a path inside the wheel",
        "uri",
    ),
    Rule(
        "spec.model",
        "!has(self.tokenSecret) || self.uri.startsWith('hf://')",
        lambda model: "tokenSecret" not in model or model["uri"].startswith("hf://"),
        "tokenSecret is for hf:// models only: remove it",
        "tokenSecret",
    ),
    Rule(
        "spec.autoscaling",
        "self.maxReplicas >= self.minReplicas",
        lambda scaling: scaling["maxReplicas"] >= scaling["minReplicas"],
        "maxReplicas must be at least minReplicas",
        "maxReplicas",
    ),
    Rule(
        "spec.autoscaling",
        "self.minReplicas > 0 || self.provider == 'keda'",
        lambda scaling: scaling["minReplicas"] > 0 or scaling["provider"] == "keda",
        "minReplicas 0 needs KEDA, since a HorizontalPodAutoscaler never starts the first replica: set provider to "
        "keda, or minReplicas to 1",
        "minReplicas",
    ),
    Rule(
        "spec.autoscaling",
        "!has(self.schedule) || self.schedule.all(entry, entry.minReplicas <= self.maxReplicas)",
        lambda scaling: all(entry["minReplicas"] <= scaling["maxReplicas"] for entry in scaling.get("schedule", ())),
        "minReplicas of each entry must be at most maxReplicas: lower it, or raise maxReplicas",
        "schedule",
    ),
    Rule(
        "spec.autoscaling",
        "!has(self.fallbackReplicas) || self.fallbackReplicas <= self.maxReplicas",
        lambda scaling: scaling.get("fallbackReplicas", 0) <= scaling["maxReplicas"],
        "fallbackReplicas must be at most maxReplicas",
        "fallbackReplicas",
    ),
    Rule(
        "spec.autoscaling",
        "!has(self.fallbackReplicas) || self.provider != 'hpa'",
        lambda scaling: "fallbackReplicas" not in scaling or scaling["provider"] != "hpa",
        "fallbackReplicas is KEDA's; a HorizontalPodAutoscaler keeps the replicas that there are: remove it",
        "fallbackReplicas",
    ),
    Rule(
        "spec.autoscaling",
        "!has(self.prometheusAuthentication) || self.provider != 'hpa'",
        lambda scaling: "prometheusAuthentication" not in scaling or scaling["provider"] != "hpa",
        "prometheusAuthentication is KEDA's; a HorizontalPodAutoscaler asks no Prometheus: remove it",
        "prometheusAuthentication",
    ),
    Rule(
        "spec.autoscaling.prometheusAuthentication",
        "self.modes.filter(mode, mode in ['bearer', 'basic', 'oauth']).size() <= 1",
        lambda authentication: len([mode for mode in authentication["modes"] if mode in _CREDENTIALS]) <= 1,
        "modes may hold only one of bearer, basic and oauth, once",
        "modes",
    ),
    Rule(
        "spec",
        "!has(self.autoscaling) || !has(self.autoscaling.runningRequests) || !has(self.engine)"
        " || !has(self.engine.maxNumSeqs) || self.autoscaling.runningRequests <= self.engine.maxNumSeqs",
        lambda spec: (
            spec.get("autoscaling", {}).get("runningRequests", 0) <= spec.get("engine", {}).get("maxNumSeqs", math.inf)
        ),
        "runningRequests must be at most engine.maxNumSeqs: a replica never runs more, so that none would be added",
        "autoscaling",
    ),
    Rule(
        "spec",
        "self.accelerator != 'cpu' || !has(self.parallelism) || !has(self.parallelism.tensor)"
        " || self.parallelism.tensor == 1",
        lambda spec: spec["accelerator"] != "cpu" or spec.get("parallelism", {}).get("tensor", 1) == 1,
        "parallelism.tensor counts GPUs: remove it, or set accelerator to gpu",
        "parallelism",
    ),
    Rule(
        "spec.resources.requests",
        "!('nvidia.com/gpu' in self)",
        lambda requests: "nvidia.com/gpu" not in requests,
        "GPUs are counted by the planner: use parallelism.tensor instead of nvidia.com/gpu",
    ),
    Rule(
        "spec.resources.limits",
        "!('nvidia.com/gpu' in self)",
        lambda limits: "nvidia.com/gpu" not in limits,
        "GPUs are counted by the planner: use parallelism.tensor instead of nvidia.com/gpu",
    ),
    Rule(
        "spec.engine.env[]",
        "!(has(self.value) && has(self.valueFrom))",
        lambda env: not ("value" in env and "valueFrom" in env),
        "set either value or valueFrom, not both",
    ),
    Rule(
        "spec.engine.env[].valueFrom",
        "has(self.secretKeyRef) != has(self.configMapKeyRef)",
        lambda source: ("secretKeyRef" in source) != ("configMapKeyRef" in source),
        "set exactly one of secretKeyRef and configMapKeyRef",
    ),
)
