"""The GPU's check by itself, where there is no GPU: it runs tiny, tells what failed, and says when it can't run."""

import json

import pytest
import torch

from bench import gpu_check
from bench.gpu.rows import Ceilings, Row, table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line_and_fails(capsys):
    assert gpu_check.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_its_sections_take_less_than_eight_minutes_together():
    assert sum(section.seconds for section in gpu_check.SECTIONS) < 480


def test_a_row_is_judged_by_its_target():
    assert Row("s", "n", 79.9, "%", least=80).verdict == "short"
    assert Row("s", "n", 80.0, "%", least=80).verdict == "ok"
    assert Row("s", "n", 1.0, "", most=0).verdict == "short"
    assert Row("s", "n", 5.0, "s").verdict == ""
    assert Row("s", "n", None, "s", note="why").verdict == "failed"


def test_a_table_has_a_line_for_each_row_with_value_target_and_verdict():
    lines = table(
        [Row("8B", "decode", 81.25, "%", least=80), Row("8B", "prefill", None, "%", note="broke")]
    ).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["8B", "decode", "81.2", "%", ">=", "80", "ok"]
    assert lines[2].endswith("broke")


def test_percents_are_of_what_was_measured_and_nothing_without_it():
    assert Ceilings(copy=200.0, matmul=50.0).percent_of_copy(100.0) == 50
    assert Ceilings(copy=200.0, matmul=50.0).percent_of_matmul(100.0) == 200
    assert Ceilings().percent_of_copy(1.0) is None


@pytest.mark.parametrize(
    ("function", "seconds", "said"),
    [("fails", 120, "the kernel is wrong"), ("dies", 120, "exit code 7"), ("hangs", 30, "not done after 30 s")],
)
def test_a_section_that_ends_badly_keeps_its_rows_and_says_why(function, seconds, said):
    section = gpu_check.Section("broken", "tests.bench.broken_sections", function, seconds)
    first, last = gpu_check.run_section(section, True, Ceilings())
    assert first == Row("broken", "before", 1.0, "s")
    assert last.verdict == "failed"
    assert said in last.note


def test_a_dry_run_measures_everything_that_it_tells_of(tmp_path):
    """Three sections here; the others differ in what they run, not in how."""
    path = tmp_path / "results.json"
    assert gpu_check.main(["--dry-run", "--only", "ceilings", "0.6B", "attention", "--output", str(path)]) == 0
    document = json.loads(path.read_text())
    assert {"date", "device", "commit", "versions", "rows"} <= set(document)
    assert {row["section"] for row in document["rows"]} == {"ceilings", "0.6B", "attention"}
    assert all(row["value"] is not None for row in document["rows"])
    compiles = [row["value"] for row in document["rows"] if "compiled" in row["name"]]
    assert compiles == [0.0]
