"""Who is served first: by arrival or by priority, past long prompts, and nobody goes round in circles."""

import pytest

from pagoda_engine.core.request import FinishReason
from pagoda_engine.sampling_params import SamplingParams


def finished(rig) -> list[str]:
    """Ids in the order in which they end."""
    order = []
    while rig.engine.has_work:
        order += [output.request_id for output in rig.engine.step() if output.finish_reason]
    return order


def test_the_lowest_priority_number_is_served_first_and_equals_by_arrival(make_rig):
    rig = make_rig(max_num_seqs=1, priority=True)
    for id_, priority in (("late", 5), ("first", 0), ("second", 0), ("urgent", -3)):
        rig.engine.add(rig.request(id_, [1], max_tokens=2, priority=priority))
    assert finished(rig) == ["urgent", "first", "second", "late"]


def test_without_the_policy_a_priority_is_refused_and_the_fix_is_named(make_rig):
    rig = make_rig()
    rig.engine.add(rig.request("a", [1], priority=-1))
    (output,) = rig.engine.step()
    assert output.finish_reason is FinishReason.ERROR
    assert output.error == "priority is -1; leave it out, or start the server with --scheduling-policy priority"


def test_who_runs_goes_on_until_blocks_are_short_and_then_the_lowest_in_line_gives_way(make_rig, answer):
    rig = make_rig(num_blocks=8, max_model_len=32, priority=True, eager=True)
    rig.engine.add(rig.request("low", [1] * 8, max_tokens=12, priority=9))
    rig.engine.step()
    rig.engine.add(rig.request("high", [2] * 8, max_tokens=12, priority=1))
    rig.engine.add(rig.request("mid", [3] * 4, max_tokens=2, priority=5))
    rig.engine.step()
    assert [request.id for request in rig.scheduler.running] == ["high", "mid", "low"]
    order = finished(rig)
    assert rig.scheduler.preemptions > 0
    assert order == ["mid", "high", "low"], "the one that was preempted, although it came first, ends last"
    rig.engine.check_integrity()


def test_two_requests_that_do_not_fit_together_do_not_preempt_each_other_for_ever(make_rig):
    """The first in line ends without ever being set back; the other is computed anew at most once a release."""
    rig = make_rig(num_blocks=9, max_model_len=32, eager=True)
    for id_ in "abc":
        rig.engine.add(rig.request(id_, [ord(id_) % 11] * 10, max_tokens=20))
    assert finished(rig) == ["a", "b", "c"]
    assert rig.scheduler.preemptions <= 4


def test_a_short_prompt_passes_a_long_one_that_may_take_only_so_much_of_a_step(make_rig):
    waited = {}
    for threshold in (0, 4):
        rig = make_rig(max_num_batched_tokens=16, max_prefill_tokens=16, long_prefill_token_threshold=threshold)
        rig.engine.add(rig.request("long", [1] * 40, max_tokens=1))
        rig.engine.add(rig.request("short", [2] * 3, max_tokens=1))
        waited[threshold] = finished(rig)
    assert waited == {0: ["long", "short"], 4: ["short", "long"]}


def test_without_prefix_caching_nothing_is_looked_for_or_found(make_rig, answer):
    rig = make_rig(prefix_caching=False)
    for id_ in ("first", "second"):
        rig.engine.add(rig.request(id_, [1] * 9, max_tokens=3))
        rig.drain()
    stats = rig.engine.stats()
    assert (stats.prefix_queries, stats.prefix_hits) == (0, 0)
    rig.engine.add(rig.request("third", [1] * 9, max_tokens=3))
    (work,) = rig.scheduler.schedule()
    assert (work.start, work.stop) == (0, 9)


def test_the_prefix_cache_counts_the_tokens_that_it_was_asked_for_and_those_it_had(make_rig):
    rig = make_rig(num_blocks=6, max_model_len=24, eager=True)
    for id_ in ("a", "b"):
        rig.engine.add(rig.request(id_, [1] * 10, max_tokens=8))
        rig.engine.step()
    rig.drain()
    assert rig.scheduler.preemptions > 0, "who starts again is not counted again"
    stats = rig.engine.stats()
    assert (stats.prefix_queries, stats.prefix_hits) == (20, 8)


def test_a_prompt_waits_for_blocks_only_until_its_own_beginning_is_in_the_cache(make_rig):
    """Its twin fills most of the cache; once computed, the two share it."""
    rig = make_rig(num_blocks=12, max_model_len=48, max_num_batched_tokens=8)
    rig.engine.add(rig.request("a", [1] * 28, max_tokens=8))
    rig.engine.add(rig.request("b", [1] * 28, max_tokens=8))
    rig.engine.step()
    assert rig.engine.stats().waiting == 1
    order = finished(rig)
    assert order == ["a", "b"]
    assert rig.engine.stats().prefix_hits == 24


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_cache_that_runs_out_under_a_request_sets_back_its_neighbour_and_changes_no_text(make_rig, answer, overlaps):
    rig = make_rig(num_blocks=10, max_model_len=36, overlaps=overlaps, eager=True)
    prompts = {"a": [1] * 6, "b": [2] * 6, "c": [3] * 6}
    for id_, prompt in prompts.items():
        rig.engine.add(rig.request(id_, prompt, max_tokens=20))
    told = rig.drain()
    assert rig.scheduler.preemptions > 0
    for id_, prompt in prompts.items():
        text = [token for output in told[id_] for token in output.token_ids]
        assert text == answer(prompt, SamplingParams(max_tokens=20, ignore_eos=True), 36)
