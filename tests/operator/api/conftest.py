"""The table of refusals, and services made from it."""

import copy
from pathlib import Path

import pytest
import yaml

TABLE = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text())


def merge_patched(target, patch):
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patched(result.get(key), value)
    return result


def pytest_generate_tests(metafunc):
    if "refusal" in metafunc.fixturenames:
        entries = [entry for entry in TABLE["refusals"] if entry["where"] == "schema"]
        metafunc.parametrize("refusal", entries, ids=[entry["name"] for entry in entries])


@pytest.fixture
def service():
    """A service that is valid."""
    return copy.deepcopy(TABLE["base"])


@pytest.fixture
def patched(service):
    """The valid service with a merge patch on it."""
    return lambda patch: merge_patched(service, patch)


@pytest.fixture
def refusals():
    """The whole table."""
    return TABLE["refusals"]
