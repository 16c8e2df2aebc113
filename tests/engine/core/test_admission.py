"""Who may start is decided by a forecast, which saves most preemptions and costs no time."""

import itertools
import random

from pagoda_engine.core.admission import AnswerLengths, peak


def test_with_nothing_known_an_answer_is_guessed_and_one_beyond_all_others_goes_on_as_long_again():
    lengths = AnswerLengths()
    assert lengths.remaining(0, 0.5) == 64
    assert lengths.remaining(7, 0.5) == 7
    lengths.note(5)
    assert lengths.remaining(5, 0.5) == 5


def test_what_remains_is_a_quantile_of_the_answers_that_got_as_far():
    lengths = AnswerLengths()
    for length in (10, 20, 60):
        lengths.note(length)
    assert [lengths.remaining(0, quantile) for quantile in (0.0, 0.4, 0.99)] == [10, 20, 60]
    assert [lengths.remaining(generated, 0.4) for generated in (9, 10, 30, 59)] == [11, 10, 30, 1]


def test_only_the_latest_answers_count():
    lengths = AnswerLengths()
    for _ in range(300):
        lengths.note(1000)
    for _ in range(256):
        lengths.note(3)
    assert {lengths.remaining(0, quantile) for quantile in (0.0, 0.99)} == {3}


def test_the_peak_is_that_of_playing_it_through():
    """All requests grow by a block a round and leave when they are done."""
    dice = random.Random(0)
    for _ in range(300):
        requests = [(dice.randint(0, 9), dice.randint(0, 9)) for _ in range(dice.randint(1, 8))]
        rounds = range(10)
        played = max(sum(held + now for growth, held in requests if growth >= now) for now in rounds)
        assert peak(requests) == played


def busy(make_rig, lengths, *, eager: bool) -> tuple[int, int, int]:
    """Answers of these lengths, more than there is room for: steps, preemptions, tokens computed."""
    dice = random.Random(5)
    rig = make_rig(
        num_blocks=160,
        block_size=4,
        max_num_seqs=32,
        max_num_batched_tokens=64,
        max_prefill_tokens=32,
        max_model_len=256,
        prefix_caching=False,
        eager=eager,
    )
    for index, length in enumerate(lengths):
        prompt = [dice.randrange(11) for _ in range(dice.randint(30, 50))]
        # Any token stops it, but none before this length: the engine sees max_tokens only.
        stops = {"max_tokens": 199, "min_tokens": length, "stop_token_ids": tuple(range(11))}
        rig.engine.add(rig.request(str(index), prompt, **stops))
    for steps in itertools.count():
        if not rig.engine.has_work:
            return steps, rig.scheduler.preemptions, rig.runner.tokens
        rig.engine.step()
    raise AssertionError


def test_where_all_answers_are_long_most_preemptions_are_saved_for_little_time(make_rig):
    steps, preemptions, tokens = busy(make_rig, [80] * 60, eager=False)
    eager_steps, eager_preemptions, eager_tokens = busy(make_rig, [80] * 60, eager=True)
    assert preemptions * 2 <= eager_preemptions
    assert tokens <= eager_tokens * 0.9
    assert steps <= eager_steps * 1.15


def test_where_answers_are_of_all_lengths_nobody_waits_for_those_that_will_end_soon(make_rig):
    dice = random.Random(1)
    lengths = [min(198, int(dice.expovariate(1 / 40))) for _ in range(80)]
    steps, preemptions, tokens = busy(make_rig, lengths, eager=False)
    eager_steps, eager_preemptions, eager_tokens = busy(make_rig, lengths, eager=True)
    assert preemptions < eager_preemptions
    assert tokens < eager_tokens
    assert steps <= eager_steps * 1.08
