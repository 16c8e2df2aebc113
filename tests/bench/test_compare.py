"""The benchmark measures what it says it does, on a model that takes no time. No time is looked at."""

import json

import pytest

from bench import compare
from bench.plan import Plan

PLAN = Plan(
    prompt_tokens=24,
    output_tokens=6,
    rounds={1: 1, 3: 2},
    prefix_concurrency=2,
    miss_rounds=1,
    hit_rounds=2,
    shared_prefix_tokens=64,
    own_tokens=8,
    hit_output_tokens=3,
    starts=1,
)
FLAGS = ["--device", "cpu", "--kv-cache-memory-bytes", str(4 << 20)]


@pytest.fixture(scope="module")
def results(tiny_model):
    benchmark = compare.Benchmark(PLAN, tiny_model, FLAGS)
    benchmark.run()
    return benchmark.results


def test_every_system_has_every_round(results):
    """Each in turn, on both sides of each comparison."""
    seen = {}
    for one in results.rounds:
        seen.setdefault((one.experiment, one.concurrency), []).append(one.system)
    assert seen == {
        ("random prompts", 1): ["pagoda", "transformers"],
        ("random prompts", 3): ["pagoda", "transformers", "transformers", "pagoda"],
        ("0 % hits", 2): ["pagoda", "no-prefix-cache"],
        ("89 % hits", 2): ["pagoda", "no-prefix-cache", "no-prefix-cache", "pagoda"],
    }


def test_every_answer_has_the_asked_number_of_tokens(results):
    """By either system's own count."""
    asked = {"0 % hits": PLAN.miss_output_tokens, "89 % hits": PLAN.hit_output_tokens}
    for one in results.rounds:
        tokens = asked.get(one.experiment, PLAN.output_tokens)
        assert one.summary.requests == one.concurrency
        assert one.summary.output_tokens == one.concurrency * tokens


def test_memory_and_start_are_of_each_system_alone(results):
    assert [one.system for one in results.alone] == ["transformers", "pagoda"]
    for one in results.alone:
        assert len(one.seconds_to_ready) == 1
        assert 50 << 20 < one.idle_bytes <= one.peak_bytes


def test_the_document_holds_all_that_a_quotation_needs(results):
    document = json.loads(results.document(compare.PAIRS))
    assert {"date", "commit", "machine", "model", "comparisons", "alone", "rounds"} <= set(document)
    assert {"python", "torch", "transformers", "pagoda-serving"} <= set(document["machine"]["versions"])
    [one] = [
        row
        for row in document["comparisons"]
        if (row["experiment"], row["concurrency"], row["what"]) == ("random prompts", 1, "output tokens/s")
    ]
    assert (
        one["least"]
        == one["low"]
        == one["ratio"]
        == one["high"]
        == one["most"]
        == pytest.approx(one["ours"] / one["theirs"])
    )


def test_the_table_has_a_line_for_each_number(results):
    lines = results.table(compare.PAIRS).splitlines()
    # A tiny model's answers may come in one piece, which leaves no time between tokens to tell of.
    assert sum("tokens/s" in line for line in lines) == 4
    assert sum("TTFT" in line for line in lines) == 4 * 3
    assert sum("start to ready" in line for line in lines) == 1
