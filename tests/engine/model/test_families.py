"""Every family that is claimed gives transformers' own greedy text, however requests are mixed, cut and interrupted."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from pagoda_engine.sampling_params import SamplingParams

FAMILIES = [
    "llama",
    "llama-tied",
    "llama-biased",
    "llama3-rope",
    "mistral",
    "mistral-window",
    "qwen2",
    "qwen2-window",
    "qwen3",
]
GREEDY = SamplingParams(temperature=0, max_tokens=16)


def prompts() -> list[list[int]]:
    """Lengths around the block size, and prefixes in common."""
    dice = random.Random(0)
    shared = [dice.randrange(3, 211) for _ in range(40)]
    own = [[dice.randrange(3, 211) for _ in range(length)] for length in (1, 2, 15, 16, 17, 33, 60)]
    return [*own, shared[:33] + own[0], shared[:33] + own[1], shared, shared]


@pytest.fixture(scope="module")
def expected(tiny_model):
    """The reference: `generate` of transformers with its eager attention, one prompt at a time."""

    def answers(family: str) -> list[list[int]]:
        model = AutoModelForCausalLM.from_pretrained(tiny_model(family), attn_implementation="eager").eval()
        texts = []
        for prompt in prompts():
            ids = torch.tensor([prompt])
            output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
            text = output[0, len(prompt) :].tolist()
            texts.append(text[:-1] if text[-1] == 2 else text)
        return texts

    return answers


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_equals_transformers_in_every_way_of_batching(tiny_model, build, generate, expected, family):
    path, want = tiny_model(family), expected(family)
    assert len({tuple(text) for text in want}) > 5, "the reference must tell its prompts apart"

    engine = build(path)
    assert [generate(engine, [prompt], GREEDY)[0] for prompt in prompts()] == want, "one at a time"
    assert generate(engine, prompts(), GREEDY) == want, "all at once, with prefixes in the cache"
    assert generate(engine, prompts(), GREEDY, arrivals=2) == want, "arriving while others decode"

    chunked = build(path, max_num_batched_tokens=8, max_num_seqs=5)
    assert generate(chunked, prompts(), GREEDY) == want, "prompts in chunks of at most 8 tokens"

    token_bytes = 3 * 2 * 2 * (24 if family == "qwen3" else 8) * 4
    tight = build(path, max_model_len=96, block_size=2, kv_cache_memory_bytes=100 * token_bytes)
    assert tight.info.num_blocks == 50
    generate(tight, prompts()[:1], SamplingParams(max_tokens=1))  # now it expects short answers, and lets in too many
    assert generate(tight, prompts(), GREEDY) == want, "with a cache for less than two long requests"
    assert tight.stats().preemptions > 0


def test_blocks_of_another_size_change_nothing(tiny_model, build, generate, expected):
    engine = build(tiny_model("llama"), block_size=3)
    assert generate(engine, prompts(), GREEDY, arrivals=1) == expected("llama")


def test_a_seeded_request_gets_the_same_text_alone_in_a_batch_and_after_preemption(tiny_model, build, generate):
    params = [SamplingParams(temperature=1.0, top_p=0.9, seed=index, max_tokens=30) for index in range(11)]
    engine = build(tiny_model("llama"))
    alone = [generate(engine, [prompt], [choice])[0] for prompt, choice in zip(prompts(), params, strict=True)]
    assert generate(engine, prompts(), params, arrivals=3) == alone
    tight = build(tiny_model("llama"), max_model_len=96, block_size=2, kv_cache_memory_bytes=100 * 3 * 2 * 2 * 8 * 4)
    generate(tight, prompts()[:1], SamplingParams(max_tokens=1))  # now it expects short answers, and lets in too many
    assert generate(tight, prompts(), params) == alone
    assert tight.stats().preemptions > 0
    other = [SamplingParams(temperature=1.0, top_p=0.9, seed=100 + index, max_tokens=30) for index in range(11)]
    assert generate(engine, prompts(), other) != alone
