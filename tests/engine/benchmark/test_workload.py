"""Prompts of a benchmark: exact lengths, no special tokens, the same for everybody."""

import pytest

from pagoda_engine.benchmark.workload import Workload


def test_prompts_have_the_asked_length_and_differ():
    prompts = Workload(prompt_tokens=64, output_tokens=8, vocabulary_size=1000).prompts(5, seed=3)
    assert [len(prompt) for prompt in prompts] == [64] * 5
    assert len({tuple(prompt) for prompt in prompts}) == 5


def test_prompts_keep_to_the_middle_of_the_vocabulary():
    """Special tokens stand at its ends."""
    [prompt] = Workload(prompt_tokens=5000, output_tokens=1, vocabulary_size=400).prompts(1, seed=0)
    assert (min(prompt), max(prompt)) == (100, 299)


def test_the_seed_alone_decides():
    workload = Workload(prompt_tokens=16, output_tokens=1, vocabulary_size=100)
    assert workload.prompts(2, seed=1) == workload.prompts(2, seed=1)
    assert workload.prompts(2, seed=1) != workload.prompts(2, seed=2)


def test_a_shared_prefix_is_shared_across_seeds_and_the_rest_is_not():
    workload = Workload(prompt_tokens=24, output_tokens=1, vocabulary_size=1000, shared_prefix_tokens=16)
    one, two = workload.prompts(1, seed=1)[0], workload.prompts(1, seed=2)[0]
    assert one[:16] == two[:16]
    assert one[16:] != two[16:]


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (Workload(0, 1, 100), "prompt_tokens is 0; it must be at least 1"),
        (Workload(1, 0, 100), "output_tokens is 0; it must be at least 1"),
        (Workload(1, 1, 3), "vocabulary_size is 3; it must be at least 4"),
        (Workload(8, 1, 100, 9), "shared_prefix_tokens is 9; it must be from 0 to prompt_tokens, 8"),
        (Workload(8, 1, 100, 8), None),
    ],
)
def test_numbers_out_of_range_are_named(workload, said):
    assert workload.problem() == said
