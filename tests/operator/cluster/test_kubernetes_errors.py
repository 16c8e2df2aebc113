"""Every answer of an API server is one error of the tree, with the server's own words."""

import json

import pytest

from pagoda_operator.cluster import errors
from pagoda_operator.cluster.kubernetes import error_of

EXPECTED = {
    400: errors.Invalid,
    401: errors.Unavailable,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.Invalid,
    406: errors.Invalid,
    408: errors.Unavailable,
    409: errors.Conflict,
    410: errors.Expired,
    413: errors.Invalid,
    415: errors.Invalid,
    422: errors.Invalid,
    429: errors.Unavailable,
    500: errors.Unavailable,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}


def status(code, reason, message="because"):
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message}).encode()


@pytest.mark.parametrize(("code", "expected"), EXPECTED.items())
def test_a_status_is_mapped_to_its_error(code, expected):
    error = error_of(code, status(code, ""))
    assert type(error) is expected
    assert (error.message, error.status, str(error)) == ("because", code, "because")


@pytest.mark.parametrize("code", [code for code in range(100, 600) if not 200 <= code < 300])
def test_no_status_is_without_an_error(code):
    error = error_of(code, b"<html>a proxy's page</html>")
    assert isinstance(error, errors.ClusterError)
    assert type(error) is not errors.ClusterError, "each one says what to do"
    assert f"HTTP {code}" in error.message
    assert "a proxy's page" in error.message


def test_a_taken_name_is_told_from_a_lost_race():
    assert type(error_of(409, status(409, "AlreadyExists"))) is errors.AlreadyExists
    assert type(error_of(409, status(409, "Conflict"))) is errors.Conflict


def test_another_uid_is_another_object_and_no_mistake_in_the_spec():
    """The API server answers an apply for an object that was replaced meanwhile by 422, not by 409."""
    causes = [{"reason": "FieldValueInvalid", "field": "metadata.uid"}, {"reason": "x", "field": "spec.selector"}]
    answer = {"kind": "Status", "reason": "Invalid", "message": "field is immutable", "details": {"causes": causes}}
    assert type(error_of(422, json.dumps(answer).encode())) is errors.Conflict
    answer["details"]["causes"].pop(0)
    assert type(error_of(422, json.dumps(answer).encode())) is errors.Invalid


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), (None, None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_the_server_says_how_long_to_wait(header, seconds):
    assert error_of(429, b"", header).retry_after == seconds


def test_a_namespace_that_goes_is_no_matter_of_rights():
    """The API server says 403 for both; only one of them is for the user to mend."""
    causes = [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]
    answer = {"kind": "Status", "reason": "Forbidden", "message": "being terminated", "details": {"causes": causes}}
    assert type(error_of(403, json.dumps(answer).encode())) is errors.Terminating
