"""Sampling parameters say what is wrong with them."""

import subprocess
import sys

import pytest

from pagoda_engine.sampling_params import SamplingParams


def test_defaults_and_edges_have_no_problem():
    assert SamplingParams().problem() is None
    edge = SamplingParams(temperature=0.0, top_p=1.0, top_k=1, min_p=1.0, seed=-(2**63), max_tokens=1, min_tokens=1)
    assert edge.problem() is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("min_p", 1.1),
        ("min_p", float("nan")),
        ("seed", 2**63),
        ("max_tokens", 0),
        ("min_tokens", 17),
        ("stop", ("",)),
        ("stop_token_ids", (-1,)),
    ],
)
def test_a_value_out_of_range_is_named(field, value):
    problem = SamplingParams(**{field: value}).problem()
    assert problem is not None
    assert problem.startswith(field)


def test_importing_the_package_and_its_core_loads_neither_torch_nor_transformers():
    """The HTTP process validates with these modules and must start at once."""
    code = (
        "import sys, pagoda_engine, pagoda_engine.core.engine; from pagoda_engine import SamplingParams; "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
