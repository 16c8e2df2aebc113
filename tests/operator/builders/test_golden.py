"""Whole plans, compared with files. `PAGODA_WRITE_GOLDEN=1 pytest tests/operator/builders` writes them anew; read the
difference before you commit it."""

import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from pagoda_operator.api.names import TEMPLATE_ANNOTATION
from pagoda_operator.core.plan import plan

GOLDEN = Path(__file__).parent / "golden"


def without_keda(case):
    service, facts, settings = case
    return service, dataclasses.replace(facts, served=frozenset()), settings


@pytest.mark.parametrize(
    ("name", "fixture", "change"),
    [("smollm2-cpu", "smollm2", None), ("qwen-gpu-keda", "qwen", None), ("qwen-gpu-hpa", "qwen", without_keda)],
)
def test_a_plan_is_the_file(request, name, fixture, change):
    case = request.getfixturevalue(fixture)
    result = plan(*(change(case) if change else case))
    for child in result.apply:
        # It repeats the template, see tests/operator/core/test_template.py.
        child["metadata"]["annotations"].pop(TEMPLATE_ANNOTATION, None)
    text = yaml.safe_dump_all([*result.apply, {"status": result.status}], sort_keys=False, width=120)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("PAGODA_WRITE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text
