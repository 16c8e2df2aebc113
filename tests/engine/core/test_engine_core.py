"""The core's promises, one at a time, against a runner that answers from a paged cache of its own."""

import pytest

from pagoda_engine.core.request import FinishReason
from pagoda_engine.sampling_params import SamplingParams


def text(outputs):
    return [token for output in outputs for token in output.token_ids]


def test_a_request_gets_its_tokens_one_a_step_and_ends_by_length(make_rig, answer):
    rig = make_rig()
    request = rig.request("a", [5, 6, 7], max_tokens=6)
    rig.engine.add(request)
    outputs = rig.drain()["a"]
    assert text(outputs) == answer([5, 6, 7], request.params, 64)
    assert [len(output.token_ids) for output in outputs] == [1] * 6
    assert [output.finish_reason for output in outputs] == [None] * 5 + [FinishReason.LENGTH]
    assert not rig.engine.has_work
    rig.engine.check_integrity()
    assert rig.engine.stats().kv_usage == 0


def test_eos_ends_a_request_and_is_not_among_its_tokens(make_rig, answer):
    rig = make_rig()
    for first in range(11):
        rig.engine.add(rig.request(str(first), [first, 1], max_tokens=40, ignore_eos=False))
    ended_by_eos = 0
    for id_, outputs in rig.drain().items():
        expected = answer([int(id_), 1], SamplingParams(max_tokens=40), 64)
        assert text(outputs) == expected
        if len(expected) < 40:
            ended_by_eos += 1
            assert (outputs[-1].finish_reason, outputs[-1].stop_token_id) == (FinishReason.STOP, 3)
    assert ended_by_eos > 5


def test_a_stop_token_ends_a_request_even_when_eos_is_ignored(make_rig, answer):
    rig = make_rig()
    expected = answer([1, 2], SamplingParams(max_tokens=20, ignore_eos=True), 64)
    stop = expected[4]
    rig.engine.add(rig.request("a", [1, 2], max_tokens=20, stop_token_ids=(stop,)))
    outputs = rig.drain()["a"]
    assert text(outputs) == expected[: expected.index(stop)]
    assert outputs[-1].stop_token_id == stop


def test_max_model_len_ends_a_request_by_length(make_rig):
    rig = make_rig(max_model_len=10)
    rig.engine.add(rig.request("a", [1] * 7, max_tokens=100))
    outputs = rig.drain()["a"]
    assert len(text(outputs)) == 3
    assert outputs[-1].finish_reason is FinishReason.LENGTH


def test_a_long_prompt_is_computed_in_chunks_of_the_budget(make_rig, answer):
    rig = make_rig(max_num_batched_tokens=8)
    request = rig.request("a", [n % 7 for n in range(30)], max_tokens=1)
    rig.engine.add(request)
    assert text(rig.drain()["a"]) == answer(request.prompt_token_ids, request.params, 64)
    assert rig.runner.steps == 4


def test_a_prompt_beside_decoders_takes_no_more_than_its_cap(make_rig):
    rig = make_rig(max_prefill_tokens=5)
    rig.engine.add(rig.request("old", [1], max_tokens=30))
    rig.engine.step()
    long = rig.request("long", [2] * 20, max_tokens=1)
    rig.engine.add(long)
    computed = []
    while not long.num_generated:
        outputs = rig.engine.step()
        assert "old" in [output.request_id for output in outputs], "a decoder must get a token in every step"
        computed.append(long.computed)
    # The answer's step has ended the request, which gives `computed` back.
    assert computed == [5, 10, 15, 0]


def test_a_second_request_with_the_same_prefix_computes_only_the_rest(make_rig, answer):
    rig = make_rig()
    prompt = list(range(10))
    rig.engine.add(rig.request("first", prompt, max_tokens=2))
    rig.drain()
    second = rig.request("second", [*prompt[:9], 1], max_tokens=3)
    rig.engine.add(second)
    (work,) = rig.scheduler.schedule()
    assert (work.start, work.stop) == (8, 10)


def test_a_prompt_that_is_cached_whole_still_computes_its_last_token(make_rig):
    rig = make_rig()
    rig.engine.add(rig.request("first", [1] * 8, max_tokens=1))
    rig.drain()
    rig.engine.add(rig.request("second", [1] * 8, max_tokens=1))
    (work,) = rig.scheduler.schedule()
    assert (work.start, work.stop, work.samples) == (4, 8, True)


def test_a_different_salt_shares_nothing(make_rig):
    rig = make_rig()
    rig.engine.add(rig.request("first", [1] * 8, max_tokens=1, salt="a"))
    rig.drain()
    rig.engine.add(rig.request("second", [1] * 8, max_tokens=1, salt="b"))
    (work,) = rig.scheduler.schedule()
    assert work.start == 0


def test_when_blocks_run_out_the_latest_arrival_waits_again_and_loses_nothing(make_rig, answer):
    rig = make_rig(num_blocks=6, max_model_len=24, eager=True)
    prompts = {"a": [1, 2, 3, 4, 5], "b": [5, 4, 3, 2, 1]}
    for id_, prompt in prompts.items():
        rig.engine.add(rig.request(id_, prompt, max_tokens=12))
    outputs = rig.drain()
    assert rig.engine.stats().preemptions >= 1
    for id_, prompt in prompts.items():
        assert text(outputs[id_]) == answer(prompt, SamplingParams(max_tokens=12, ignore_eos=True), 24)


def test_no_more_than_max_num_seqs_run_at_once(make_rig):
    rig = make_rig(max_num_seqs=2)
    for index in range(5):
        rig.engine.add(rig.request(str(index), [index], max_tokens=3))
    rig.engine.step()
    stats = rig.engine.stats()
    assert (stats.running, stats.waiting) == (2, 3)


@pytest.mark.parametrize(
    ("prompt", "params", "words"),
    [
        ([], {}, "prompt is empty"),
        ([1] * 64, {}, "leaves no room"),
        ([1], {"max_tokens": 0}, "max_tokens is 0"),
        ([1], {"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_a_request_that_can_never_be_served_ends_with_an_error_that_says_why(make_rig, prompt, params, words):
    rig = make_rig()
    rig.engine.add(rig.request("bad", prompt, **params))
    rig.engine.add(rig.request("good", [1], max_tokens=2))
    outputs = rig.drain()
    (bad,) = outputs["bad"]
    assert bad.finish_reason is FinishReason.ERROR
    assert words in bad.error
    assert outputs["good"][-1].finish_reason is FinishReason.LENGTH


def test_a_request_larger_than_the_whole_cache_is_refused_with_both_numbers(make_rig):
    rig = make_rig(num_blocks=4, max_model_len=64)
    rig.engine.add(rig.request("fits", [1] * 9, max_tokens=8))
    rig.engine.add(rig.request("bad", [1] * 9, max_tokens=9))
    outputs = rig.drain()
    assert outputs["fits"][-1].finish_reason is FinishReason.LENGTH
    assert "17 tokens" in outputs["bad"][0].error
    assert "holds 16" in outputs["bad"][0].error


def test_an_error_of_one_request_leaves_those_beside_it_alone(make_rig, answer):
    rig = make_rig()
    rig.runner.broken.add("bad")
    for id_ in ("bad", "good"):
        rig.engine.add(rig.request(id_, [1, 2], max_tokens=4))
    outputs = rig.drain()
    assert [(output.finish_reason, output.error) for output in outputs["bad"]] == [
        (FinishReason.ERROR, "logits are not finite")
    ]
    assert text(outputs["good"]) == answer([1, 2], SamplingParams(max_tokens=4, ignore_eos=True), 64)
    rig.engine.check_integrity()


def test_what_a_failed_request_left_in_the_cache_is_not_shared(make_rig):
    """Its keys and values may be NaN; a later request with that prefix computes its own."""
    rig = make_rig()
    rig.runner.broken.add("bad")
    rig.engine.add(rig.request("bad", [1] * 9))
    rig.drain()
    rig.engine.add(rig.request("next", [1] * 9))
    (work,) = rig.scheduler.schedule()
    assert work.start == 0
    rig.engine.check_integrity()


def test_abort_frees_a_request_wherever_it_is_and_is_silent_about_unknown_ones(make_rig):
    rig = make_rig(max_num_seqs=1)
    for id_ in ("running", "waiting"):
        rig.engine.add(rig.request(id_, [1] * 6, max_tokens=9))
    rig.engine.step()
    for id_ in ("waiting", "running", "running", "never seen"):
        rig.engine.abort(id_)
    assert not rig.engine.has_work
    rig.engine.check_integrity()
    assert rig.engine.stats().kv_usage == 0


def test_an_id_that_is_in_use_is_refused(make_rig):
    rig = make_rig()
    rig.engine.add(rig.request("a", [1]))
    with pytest.raises(ValueError, match="'a' is running already"):
        rig.engine.add(rig.request("a", [2]))


def test_queue_time_comes_with_the_first_output_and_only_there(make_rig):
    rig = make_rig(max_num_seqs=1)
    rig.engine.add(rig.request("first", [1], max_tokens=2))
    rig.engine.add(rig.request("second", [1], max_tokens=2))
    rig.engine.step()
    rig.now += 5
    outputs = rig.drain()["second"]
    assert [output.queue_seconds for output in outputs] == [5.0, None]


def test_requests_without_a_seed_get_distinct_ones_and_named_seeds_are_kept(make_rig):
    rig = make_rig()
    requests = [rig.request(str(index), [1]) for index in range(8)] + [rig.request("named", [1], seed=42)]
    for request in requests:
        rig.engine.add(request)
    assert requests[-1].seed == 42
    assert len({request.seed for request in requests}) == 9


def test_a_step_budget_smaller_than_the_running_requests_is_refused(make_rig):
    with pytest.raises(ValueError, match="each running request needs a token in every step"):
        make_rig(max_num_seqs=9, max_num_batched_tokens=8)


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_prompt_is_scored_in_chunks_and_not_found_in_the_cache(make_rig, prompt_scores, overlaps):
    """No step scores more than its limit, whoever asks; the last chunk samples too."""
    rig = make_rig(num_blocks=64, max_model_len=64, max_scored_tokens=5, overlaps=overlaps)
    prompt = [n % 7 for n in range(23)]
    batches = []
    launch = rig.runner.launch
    rig.runner.launch = lambda batch: batches.append(list(batch)) or launch(batch)
    for round_ in ("first", "second"):
        for name in ("a", "b"):
            rig.engine.add(rig.request(f"{name} {round_}", prompt, max_tokens=2, prompt_logprobs=0))
        rig.engine.add(rig.request(f"plain {round_}", prompt, max_tokens=2))
        outputs = rig.drain()
        for name in ("a", "b"):
            assert outputs[f"{name} {round_}"][0].prompt_logprobs == prompt_scores(prompt)
            assert outputs[f"{name} {round_}"][1].prompt_logprobs == []
        assert outputs[f"plain {round_}"][0].prompt_logprobs == []
    assert max(sum(work.scored for work in batch) for batch in batches) == 5
    assert sum(work.scored for batch in batches for work in batch) == 4 * 22
    rig.engine.check_integrity()


def test_a_failure_while_a_prompt_is_scored_ends_the_request(make_rig):
    rig = make_rig(max_scored_tokens=3)
    rig.runner.broken.add("a")
    rig.engine.add(rig.request("a", [1] * 9, max_tokens=2, prompt_logprobs=0))
    [output] = rig.drain()["a"]
    assert (output.finish_reason, output.error) == (FinishReason.ERROR, "logits are not finite")
    assert rig.runner.steps == 1
    rig.engine.check_integrity()


def test_a_token_id_that_the_model_does_not_have_is_refused(make_rig):
    rig = make_rig()
    rig.engine.add(rig.request("prompt", [1, 11], max_tokens=1))
    rig.engine.add(rig.request("negative", [1, -1], max_tokens=1))
    rig.engine.add(rig.request("bias", [1], max_tokens=1, logit_bias={11: 1.0}))
    outputs = rig.drain()
    assert [outputs[id_][0].error.split(";")[0] for id_ in ("prompt", "negative", "bias")] == [
        "the prompt holds token id 11",
        "the prompt holds token id -1",
        "logit_bias holds token id 11",
    ]
    assert rig.runner.steps == 0
