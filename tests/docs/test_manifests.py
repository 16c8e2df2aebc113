"""InferenceServices that the documentation shows are ones that the API server takes."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from pagoda_operator.api.names import KIND
from pagoda_operator.api.validation import validate

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))


def services(text: str) -> list[dict]:
    """Each block of a document, fenced or indented, that is an InferenceService; heredocs end where they say."""
    starts = re.finditer(r"^( *)apiVersion: pagoda\.dev/.*\n(?:(?:\1.*)?\n)*", text, re.MULTILINE)
    blocks = (re.split(r"^(?:```|END|EOF)", textwrap.dedent(match[0]), flags=re.MULTILINE)[0] for match in starts)
    # A block ends at the first blank line: what follows, a command's output say, is not YAML.
    return [service for block in blocks if (service := yaml.safe_load(block.partition("\n\n")[0]))["kind"] == KIND]


def test_services_of_documents_are_valid(document):
    """The schema and its rules refuse none of them."""
    for service in services(document.read_text()):
        assert validate(service) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path):
    """Every file of examples/ holds InferenceServices that are not refused."""
    loaded = list(yaml.safe_load_all(path.read_text()))
    assert loaded
    for service in loaded:
        assert validate(service) == []


def test_a_service_is_found_in_either_kind_of_block():
    """Fenced and indented blocks are read, and what follows the manifest is not."""
    manifest = f"apiVersion: pagoda.dev/v1alpha1\nkind: {KIND}\nmetadata: {{name: a}}\nspec:\n  model: {{uri: 'x'}}\n"
    indented = textwrap.indent(manifest, "    ")
    for text in (f"```yaml\n{manifest}```\nmore", f"text:\n\n{indented}\n    $ kubectl get it\n"):
        (service,) = services(text)
        assert service["spec"] == {"model": {"uri": "x"}}
        assert validate(service) != []
