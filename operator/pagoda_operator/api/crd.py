"""The CustomResourceDefinition, generated from the models of this package.

`python -m pagoda_operator.api.crd` writes `crds/pagoda.dev_inferenceservices.yaml`; a test holds the file to it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import yaml

from pagoda_operator.api.names import CATEGORY, GROUP, KIND, PLURAL, SHORT_NAME, SINGULAR, VERSION, Object
from pagoda_operator.api.rules import RULES
from pagoda_operator.api.spec import Spec
from pagoda_operator.api.status import Status
from pagoda_operator.api.structural import add_rules, structural_schema

FILE: Final = Path("crds") / f"{GROUP}_{PLURAL}.yaml"

COLUMNS: Final = (
    ("READY", "string", '.status.conditions[?(@.type=="Ready")].status'),
    ("REASON", "string", '.status.conditions[?(@.type=="Ready")].reason'),
    ("MODEL", "string", ".status.model"),
    ("GPU", "string", ".status.plan.gpu"),
    ("TP", "integer", ".status.plan.tensorParallel"),
    ("REPLICAS", "string", ".status.ready"),
    ("CACHE", "string", ".status.cache.state"),
    ("WAITING", "integer", ".status.queue.waiting"),
    ("URL", "string", ".status.url"),
    ("AGE", "date", ".metadata.creationTimestamp"),
)
"""Printer columns: title, type, JSON path. `pagoda local` prints the same table."""


def openapi_schema() -> Object:
    """The structural schema of a whole InferenceService, with its CEL rules."""
    schema: Object = {
        "type": "object",
        "description": "An LLM served over an OpenAI-compatible API.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"description": "What to serve, and how.", **structural_schema(Spec)},
            "status": {"description": "What became of it.", **structural_schema(Status)},
        },
    }
    add_rules(schema, RULES)
    return schema


def custom_resource_definition() -> Object:
    """The whole CRD as a plain object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path} for name, type_, path in COLUMNS
                    ],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": openapi_schema()},
                }
            ],
        },
    }


def to_yaml() -> str:
    """The CRD as the file holds it."""
    head = "# Generated from operator/pagoda_operator/api by `make crd`; don't edit.\n"
    return head + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120)


def main(argv: list[str]) -> int:
    """Write the CRD into the folder given, or into the working folder's `crds/`."""
    folder = Path(argv[0]) if argv else FILE.parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE.name).write_text(to_yaml())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
