"""What `pagoda local up` makes of a file, and how it refuses one."""

import base64
from pathlib import Path

import pytest

from pagoda_operator.local.document import DocumentError, read_document

EXAMPLE = Path(__file__).parents[3] / "examples" / "smollm2.yaml"
HEAD = "apiVersion: pagoda.dev/v1alpha1\nkind: InferenceService\nmetadata: {name: x}\n"


def test_example_is_read():
    document = read_document(EXAMPLE)
    assert document.service["metadata"] == {"namespace": "default", "name": "smollm2"}
    assert document.secrets == ()


def test_secret_beside_the_service_is_encoded(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(
        HEAD + "spec: {model: {uri: 'hf://o/m'}}\n---\n"
        "apiVersion: v1\nkind: Secret\nmetadata: {name: hub}\nstringData: {token: hf_x}\n---\n"
    )
    (secret,) = read_document(file).secrets
    assert secret["data"] == {"token": base64.b64encode(b"hf_x").decode()}
    assert "stringData" not in secret


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("just words", "holds a str"),
        ("", "holds 0 InferenceServices"),
        (HEAD + "spec: {model: {uri: 'hf://o/m'}}\n---\n" + HEAD + "spec: {model: {uri: 'hf://o/m'}}", "holds 2 Infer"),
        ("kind: InferenceService\nspec: {}", "InferenceService has no metadata.name"),
        ("kind: Deployment\nmetadata: {name: x}", "holds a Deployment; without a cluster"),
        (HEAD + "spec: {}", r"spec\.model: Required value"),
        (HEAD + "spec: {model: {uri: 'hf://o/m'}, replica: 1}", r'unknown field "spec\.replica"'),
        (HEAD.replace("{name: x}", "{name: 7b-chat}") + "spec: {model: {uri: 'hf://o/m'}}", "a DNS-1035 label"),
        (HEAD + "spec: {model: {uri: 'ftp://o/m'}}", r"spec\.model\.uri"),
    ],
)
def test_bad_file_is_refused_with_what_is_wrong(tmp_path, text, words):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(DocumentError, match=words):
        read_document(file)


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DocumentError, match=r"none\.yaml can't be read: No such file"):
        read_document(tmp_path / "none.yaml")
