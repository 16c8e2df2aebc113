"""Tables of the documentation are those that the code gives."""

from __future__ import annotations

import re

import pytest

from pagoda_engine.contract import Metric


def test_tables_are_current(tables, document):
    """`make docs` would change nothing."""
    text = document.read_text()
    assert tables.rewritten(text) == text, "run `make docs`"


def test_every_block_is_closed(document):
    """A table without its end mark would never be rewritten."""
    marks = re.findall(r"^<!-- (/?table)\b", document.read_text(), re.MULTILINE)
    assert marks == ["table", "/table"] * (len(marks) // 2)


def test_every_table_is_told_somewhere(tables, files):
    """Flags, fields, metrics, exit codes and values: none is documented nowhere."""
    told = set()
    for name in files:
        if name.endswith(".md"):
            told |= {match["name"] for match in tables.BLOCK.finditer((tables.REPOSITORY / name).read_text())}
    assert told == set(tables.TABLES)


def test_a_stale_table_is_rewritten(tables):
    """Whatever stands between the marks gives way; what is around them stays."""
    text = "before\n<!-- table: exit-codes -->\nold\n<!-- /table -->\nafter\n"
    new = tables.rewritten(text)
    assert new.startswith("before\n<!-- table: exit-codes -->\n| Exit code | Reason |\n")
    assert new.endswith("| 19 | `DeviceNotFound` |\n<!-- /table -->\nafter\n")
    assert tables.rewritten(new) == new


def test_an_unknown_table_is_an_error(tables):
    """A typing error in a mark is found."""
    with pytest.raises(KeyError, match="exit-kodes"):
        tables.rewritten("<!-- table: exit-kodes -->\n<!-- /table -->\n")


def test_metrics_of_the_contract_are_what_a_server_exposes(tables):
    """The operator's scalers and scraper read names of the contract; a server exposes these and no others."""
    exposed = {name.removesuffix("_total") for name in re.findall(r"`((?:vllm|pagoda):\w+)`", tables.engine_metrics())}
    assert exposed == {metric.value for metric in Metric}


def test_every_value_of_the_chart_has_a_comment(tables):
    """The table leaves out no key of values.yaml, however deep."""

    def leaves(values, path=""):
        for key, value in values.items():
            place = f"{path}{key}"
            if place in told or not isinstance(value, dict):
                yield place
            else:
                yield from leaves(value, f"{place}.")

    told = set(re.findall(r"^\| `([\w.]+)`", tables.chart_values(), re.MULTILINE))
    assert set(leaves(tables.yaml.safe_load(tables.VALUES.read_text()))) == told
