"""Quantities are written as the API server gives them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda_operator.api.quantity import canonical, gib, parse


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        (4, "4"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("1e3", "1e3"),
        ("0", "0"),
        ("0.0000000001", "1n"),
        ("+5", "5"),
    ],
)
def test_the_canonical_form_is_upstream_s(given_, expected):
    """Expected values by k8s.io/apimachinery/pkg/api/resource, Quantity.String."""
    assert canonical(given_) == expected


@given(
    st.integers(0, 10**12),
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti"]),
)
def test_the_canonical_form_is_the_same_amount_and_stays_as_it_is(number, suffix):
    text = canonical(f"{number}{suffix}")
    assert parse(text) == parse(f"{number}{suffix}")
    assert canonical(text) == text


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gi", "1e", "--1", "1.2.3"])
def test_what_is_no_quantity_is_refused_with_the_fix(text):
    with pytest.raises(ValueError, match="write a number and a suffix"):
        parse(text)


def test_gib_never_holds_less():
    assert gib(1) == "1Gi"
    assert gib(2**30) == "1Gi"
    assert gib(2**30 + 1) == "2Gi"
