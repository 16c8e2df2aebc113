"""A step is launched before the one before it is read, and nobody outside can tell."""

import random

import pytest

from pagoda_engine.core.request import FinishReason
from pagoda_engine.sampling_params import SamplingParams


class HostSampled(SamplingParams):
    """Parameters whose every token depends on the one before it, on the host."""

    reads_history = True


def tell(rig, outputs):
    """Outputs by request, without the times."""
    return {
        id_: [(one.token_ids, one.finish_reason, one.stop_token_id, one.error) for one in outputs.get(id_, [])]
        for id_ in sorted(outputs)
    }


def test_each_step_is_launched_before_the_one_before_it_is_read(make_rig):
    rig = make_rig(overlaps=True)
    rig.engine.add(rig.request("a", [1, 2], max_tokens=3))
    rig.drain()
    assert rig.runner.log == ["launch 1", "launch 2", "read 1", "launch 3", "read 2", "read 3"]


def test_a_runner_that_does_not_overlap_is_read_at_once(make_rig):
    rig = make_rig()
    rig.engine.add(rig.request("a", [1, 2], max_tokens=2))
    rig.drain()
    assert rig.runner.log == ["launch 1", "read 1", "launch 2", "read 2"]


def test_a_token_that_must_be_known_on_the_host_is_read_before_the_next_is_scheduled(make_rig, answer):
    rig = make_rig(overlaps=True)
    careful = rig.request("careful", [1, 2])
    careful.params = HostSampled(max_tokens=3, ignore_eos=True)
    rig.engine.add(careful)
    outputs = rig.drain()["careful"]
    assert rig.runner.log == ["launch 1", "read 1", "launch 2", "read 2", "launch 3", "read 3"]
    assert [token for one in outputs for token in one.token_ids] == answer([1, 2], careful.params, 64)


def test_an_end_by_length_is_foreseen_and_nothing_is_computed_in_vain(make_rig):
    steps = {}
    for overlaps in (False, True):
        rig = make_rig(overlaps=overlaps, max_model_len=12)
        rig.engine.add(rig.request("by max_tokens", [1, 2], max_tokens=5))
        rig.engine.add(rig.request("by max_model_len", [1, 2, 3], max_tokens=50))
        rig.drain()
        steps[overlaps] = rig.runner.steps
    assert steps[True] == steps[False] == 9


def test_what_comes_after_a_stop_token_is_thrown_away_and_its_blocks_are_free_at_once(make_rig, answer):
    rig = make_rig(overlaps=True)
    text = answer([1, 2], SamplingParams(max_tokens=20, ignore_eos=True), 64)
    stop = text[4]
    rig.engine.add(rig.request("a", [1, 2], max_tokens=20, stop_token_ids=(stop,)))
    told = []
    while not told or told[-1].finish_reason is None:
        told += rig.engine.step()
    assert [token for one in told for token in one.token_ids] == text[: text.index(stop)]
    assert (told[-1].finish_reason, told[-1].stop_token_id) == (FinishReason.STOP, stop)
    assert rig.engine.stats().kv_usage == 0, "in the very step that tells of the end"
    rig.engine.check_integrity()
    assert rig.engine.has_work, "one more launch is to be read"
    assert rig.engine.step() == []
    assert not rig.engine.has_work
    assert rig.runner.steps == text.index(stop) + 2


@pytest.mark.parametrize("steps", range(7))
def test_an_abort_at_any_moment_frees_everything_and_changes_nothing_for_the_neighbour(make_rig, answer, steps):
    rig = make_rig(overlaps=True, max_num_batched_tokens=8, max_prefill_tokens=4)
    rig.engine.add(rig.request("stays", [1, 2, 3], max_tokens=9))
    rig.engine.add(rig.request("goes", [4] * 11, max_tokens=9))
    told = []
    for _ in range(steps):
        told += rig.engine.step()
    rig.engine.abort("goes")
    rig.engine.check_integrity()
    told += rig.drain().get("stays", [])
    mine = [token for one in told if one.request_id == "stays" for token in one.token_ids]
    assert mine == answer([1, 2, 3], SamplingParams(max_tokens=9, ignore_eos=True), 64)
    assert rig.engine.stats().kv_usage == 0


def test_an_id_that_is_used_again_while_its_last_token_is_in_flight_gets_its_own_text(make_rig, answer):
    rig = make_rig(overlaps=True)
    rig.engine.add(rig.request("a", [1, 2], max_tokens=5))
    rig.engine.step()
    rig.engine.abort("a")
    rig.engine.add(rig.request("a", [5, 6], max_tokens=5))
    told = rig.drain()["a"]
    assert [token for one in told for token in one.token_ids] == answer(
        [5, 6], SamplingParams(max_tokens=5, ignore_eos=True), 64
    )


def test_a_prefix_is_shared_only_once_what_computed_it_has_been_read(make_rig):
    rig = make_rig(overlaps=True)
    rig.runner.broken.add("bad")
    rig.engine.add(rig.request("bad", [1] * 9, max_tokens=9))
    rig.engine.step()  # its prompt is in flight, and nobody knows yet that it fails
    rig.engine.add(rig.request("twin", [1] * 9, max_tokens=1))
    told = [one for _ in range(4) for one in rig.engine.step()]
    assert [(one.request_id, one.finish_reason) for one in told] == [
        ("bad", FinishReason.ERROR),
        ("twin", FinishReason.LENGTH),
    ]
    rig.engine.add(rig.request("third", [1] * 9, max_tokens=1))
    (work,) = rig.scheduler.schedule()
    assert work.start == 8, "the twin's blocks are good"


def test_what_a_request_filed_is_forgotten_when_it_fails_while_preempted(make_rig):
    def crowded():
        rig = make_rig(num_blocks=6, max_model_len=24, overlaps=True, eager=True)
        requests = [rig.request(str(token), [token] * 8, max_tokens=12) for token in (1, 2)]
        for request in requests:
            rig.engine.add(request)
        return rig, requests[1]

    rig, _ = crowded()
    steps = 0
    while not rig.scheduler.preemptions:
        rig.engine.step()
        steps += 1
        assert steps < 50
    rig, second = crowded()
    for _ in range(steps - 1):
        rig.engine.step()
    rig.runner.broken.add(second.id)
    told = rig.engine.step()
    assert rig.scheduler.preemptions == 1
    assert [one.request_id for one in told if one.error] == [second.id], "its failed sample was in flight"
    assert len(second.block_hashes) >= 2
    assert rig.blocks.find(second.block_hashes) == []
    rig.drain()
    rig.engine.add(rig.request("third", [2] * 9, max_tokens=1))
    (work,) = rig.scheduler.schedule()
    assert work.start == 0


@pytest.mark.parametrize("life", range(60))
def test_outputs_are_identical_with_and_without_overlap(make_rig, life):
    """Random stops, errors, aborts after a number of tokens, and caches so small that requests are preempted."""
    told = {}
    for overlaps in (False, True):
        dice = random.Random(life)
        shape = {"num_blocks": dice.randint(10, 18), "max_num_batched_tokens": dice.choice([8, 16, 32])}
        rig = make_rig(**shape, max_prefill_tokens=8, max_model_len=40, overlaps=overlaps, eager=True)
        requests = [
            rig.request(
                str(index),
                [dice.randrange(2) for _ in range(dice.randint(1, 20))],
                max_tokens=dice.randint(1, 19),
                ignore_eos=dice.random() < 0.3,
                stop_token_ids=(dice.randrange(11),) if dice.random() < 0.3 else (),
            )
            for index in range(10)
        ]
        rig.runner.broken = {request.id for request in requests if dice.random() < 0.1}
        aborts = {request.id: dice.randint(0, 8) for request in requests if dice.random() < 0.2}
        outputs: dict[str, list] = {request.id: [] for request in requests}
        queue = list(requests)
        while queue or rig.engine.has_work:
            for request in queue[:2]:
                rig.engine.add(request)
            del queue[:2]
            for output in rig.engine.step():
                outputs[output.request_id].append(output)
                if output.request_id in aborts and len(outputs[output.request_id]) > aborts[output.request_id]:
                    rig.engine.abort(output.request_id)
            rig.engine.check_integrity()
        told[overlaps] = tell(rig, outputs)
        assert rig.engine.stats().kv_usage == 0
    assert told[True] == told[False]
