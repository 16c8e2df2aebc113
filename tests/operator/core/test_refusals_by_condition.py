"""What the schema can't refuse is told by a condition: the other half of the table in tests/operator/api."""

import copy
from pathlib import Path

import pytest
import yaml

from pagoda_engine.contract import ModelFacts
from pagoda_operator.api.validation import validate

TABLE = yaml.safe_load((Path(__file__).parents[1] / "api" / "refusals.yaml").read_text())
ENTRIES = [entry for entry in TABLE["refusals"] if entry["where"] == "condition"]

QWEN = ModelFacts("Qwen2ForCausalLM", "bfloat16", 15_231_233_024, 15_242_694_808, 28, 28, 4, 128, 3584, 152064, 32768)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["name"] for entry in ENTRIES])
def test_it_is_admitted_and_told_by_a_condition_without_pods(world, entry):
    service = copy.deepcopy(TABLE["base"])
    service["metadata"] |= {"uid": "u", "generation": 1}
    service["spec"] |= entry["patch"]["spec"]
    assert validate(service) == []
    world.service = service
    result = world.given(model=QWEN).step()
    assert result.apply == ()
    assert world.reason("Planned") == ("False", entry["reason"])
    assert world.reason() == ("False", entry["reason"])
    assert entry["message"] in world.condition("Ready")["message"]
