"""Long random lives of the core: arrivals, aborts, errors, tiny caches. Nothing leaks, starves or is answered wrong."""

import random

import pytest

from pagoda_engine.core.request import FinishReason

STEPS_PER_LIFE = 150
LIVES = 140  # 21,000 steps and more; 7,000 lives are a million


def random_shape(dice: random.Random) -> dict[str, int]:
    block_size = dice.choice([1, 2, 4, 16])
    budget = dice.choice([1, 2, 5, 16, 64])
    return {
        "block_size": block_size,
        "num_blocks": dice.randint(-(-24 // block_size), 120 // block_size + 2),
        "max_num_seqs": dice.randint(1, min(budget, 12)),
        "max_num_batched_tokens": budget,
        "max_prefill_tokens": dice.randint(1, budget),
        "max_model_len": dice.randint(4, 60),
        "max_scored_tokens": dice.choice([1, 3, 64]),
    }


def random_prompt(dice: random.Random) -> list[int]:
    """Prompts over two tokens with common beginnings, so that prefixes are shared and collisions would show."""
    shared = [1] * dice.choice([0, 0, 3, 8, 16, 17])
    return shared + [dice.randint(0, 1) for _ in range(dice.choice([0, 1, 2, 5, 12, 40]))]


def advance_of_the_eldest(rig) -> int:
    """Steps that the eldest request has behind it, as a number that must grow while it lives."""
    eldest = next(rig.scheduler.requests())
    return 1000 * len(eldest.tokens) + eldest.computed


@pytest.mark.parametrize("life", range(LIVES))
def test_every_request_ends_with_its_own_answer_and_no_block_is_lost(make_rig, answer, prompt_scores, life):
    dice = random.Random(life)
    rig = make_rig(**random_shape(dice), overlaps=dice.random() < 0.5, eager=dice.random() < 0.5)
    rate = dice.choice([0.05, 0.3, 0.9])
    alive, texts, scores = {}, {}, {}
    arrivals = 0
    for step in range(100_000):
        if step < STEPS_PER_LIFE:
            while dice.random() < rate:
                request = rig.request(
                    str(arrivals),
                    random_prompt(dice),
                    salt=dice.choice(["", "", "other"]),
                    max_tokens=dice.randint(1, 30),
                    ignore_eos=dice.random() < 0.5,
                    prompt_logprobs=dice.choice([None, None, 0]),
                )
                arrivals += 1
                if dice.random() < 0.03:
                    rig.runner.broken.add(request.id)
                rig.engine.add(request)
                alive[request.id], texts[request.id], scores[request.id] = request, [], []
            if alive and dice.random() < 0.05:
                victim = dice.choice(list(alive))
                rig.engine.abort(victim)
                # An abort may meet a refusal that has not been told yet.
                if alive[victim].turn[1]:
                    del alive[victim]
        elif not rig.engine.has_work:
            break
        eldest = next(rig.scheduler.requests(), None)
        before = advance_of_the_eldest(rig) if eldest else 0
        for output in rig.engine.step():
            request = alive[output.request_id]
            texts[request.id] += output.token_ids
            scores[request.id] += output.prompt_logprobs
            if output.finish_reason is None:
                continue
            del alive[request.id]
            if output.finish_reason is FinishReason.ERROR:
                assert request.turn[1] == 0 or request.id in rig.runner.broken, output.error
            else:
                limit = rig.scheduler.config.max_model_len
                assert texts[request.id] == answer(request.prompt_token_ids, request.params, limit)
                asked = request.params.prompt_logprobs is not None
                assert scores[request.id] == (prompt_scores(request.prompt_token_ids) if asked else [])
        if eldest is not None and eldest.id in alive:
            assert next(rig.scheduler.requests()) is eldest
            assert advance_of_the_eldest(rig) > before, "the eldest request must advance in every step"
        rig.engine.check_integrity()
    assert alive == {}
    assert arrivals > 0
    assert rig.engine.stats().kv_usage == 0
