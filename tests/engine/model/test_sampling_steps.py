"""What requests ask of sampling holds through whole runs of the engine: alone, in a batch, chunked and preempted."""

import math
import time

import pytest
import torch
from transformers import AutoModelForCausalLM

from pagoda_engine.core.request import Request
from pagoda_engine.sampling_params import SamplingParams

PROMPTS = [[1, 5, 9, 5, 7], [3, 4] * 20, list(range(10, 60)), [8]]
ASKED = [
    {"temperature": 1.0, "seed": 5, "top_p": 0.95},
    {"temperature": 1.0, "seed": 6, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    {"temperature": 0.7, "seed": 7, "top_k": 20, "logit_bias": {17: 3.0}, "bad_token_ids": ((9,), (5, 7))},
    {"temperature": 0.0, "allowed_token_ids": tuple(range(100, 140)), "repetition_penalty": 1.5},
]
# Room for less than two of the longest: 100 tokens of layers, keys and values, heads, head_dim, bytes.
TIGHT = {"max_model_len": 96, "block_size": 2, "kv_cache_memory_bytes": 100 * 3 * 2 * 2 * 8 * 4}


def run(engine, prompts, params) -> list[dict]:
    """Everything that the requests' outputs hold, by request."""
    results = {}
    for index, (prompt, one) in enumerate(zip(prompts, params, strict=True)):
        engine.add(Request(str(index), list(prompt), one, engine.info.eos_token_ids, time.monotonic()))
        results[str(index)] = {"tokens": [], "logprobs": [], "prompt": [], "error": None}
    while engine.has_work:
        for output in engine.step():
            result = results[output.request_id]
            result["tokens"] += output.token_ids
            result["logprobs"] += output.logprobs
            result["prompt"] += output.prompt_logprobs
            result["error"] = output.error
    engine.check_integrity()
    return list(results.values())


def expect_short_answers(engine) -> None:
    """Whoever has seen a short answer lets in too many, and has to preempt some of them later."""
    run(engine, PROMPTS[:1], [SamplingParams(max_tokens=1)])


def asked(**more) -> list[SamplingParams]:
    return [SamplingParams(max_tokens=24, ignore_eos=True, **params, **more) for params in ASKED]


@pytest.fixture(scope="module")
def reference(tiny_model):
    """Log-probabilities of each token of a text but the first, by transformers' own model in float32."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model("llama"), dtype=torch.float32).eval()

    def score(tokens) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([list(tokens)])).logits[0, :-1].log_softmax(dim=-1)

    return score


def test_a_text_is_the_same_alone_in_a_batch_in_chunks_and_after_preemption(tiny_model, build):
    alone_engine = build(tiny_model("llama"))
    alone = [run(alone_engine, [prompt], [one])[0] for prompt, one in zip(PROMPTS, asked(), strict=True)]
    assert all(result["error"] is None and len(result["tokens"]) == 24 for result in alone)
    assert set(alone[3]["tokens"]) <= set(range(100, 140))
    batch = run(build(tiny_model("llama")), PROMPTS * 3, asked() * 3)
    assert batch == alone * 3
    chunked = run(build(tiny_model("llama"), max_num_batched_tokens=16, max_num_seqs=8), PROMPTS * 3, asked() * 3)
    assert chunked == alone * 3
    tight = build(tiny_model("llama"), **TIGHT)
    expect_short_answers(tight)
    assert run(tight, PROMPTS * 3, asked() * 3) == alone * 3
    assert tight.stats().preemptions > 0


def test_logprobs_of_output_and_prompt_are_those_of_transformers(tiny_model, build, reference):
    """Whole, in chunks of prompts, beside each other, with a full prefix cache, and after preemption."""
    params = [SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, logprobs=3, prompt_logprobs=2)] * 12
    for engine_args in ({}, {"max_num_batched_tokens": 16, "max_num_seqs": 8}, TIGHT):
        engine = build(tiny_model("llama"), **engine_args)
        expect_short_answers(engine)
        for _ in range(2):  # the second time every block is in the prefix cache
            for prompt, result in zip(PROMPTS * 3, run(engine, PROMPTS * 3, params), strict=True):
                assert result["error"] is None
                scores = reference(prompt + result["tokens"])
                found = [*result["prompt"], *result["logprobs"]]
                assert len(found) == len(scores), engine_args
                for token, one, row in zip([*prompt, *result["tokens"]][1:], found, scores, strict=True):
                    assert one.token_id == token
                    assert one.logprob == pytest.approx(row[token].item(), abs=2e-4)
                    assert one.rank == 1 + int((row > row[token] + 1e-6).sum())
                    assert one.top_logprobs == pytest.approx(row.topk(len(one.top_ids)).values.tolist(), abs=2e-4)
                assert [len(one.top_ids) for one in found] == [2] * (len(prompt) - 1) + [3] * 24
    assert engine.stats().preemptions > 0


def test_a_prompt_that_is_scored_does_not_stop_the_others(tiny_model, build):
    """Its chunks are short, since each of its tokens takes a row of logits."""
    engine = build(tiny_model("llama"))
    scored = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True, prompt_logprobs=0)
    plain = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    long = [token % 200 for token in range(240)]
    alone = run(build(tiny_model("llama")), PROMPTS, [plain] * 4)
    results = run(engine, [long, *PROMPTS, long], [scored, *[plain] * 4, scored])
    assert results[1:-1] == alone
    assert [[one.token_id for one in results[at]["prompt"]] for at in (0, -1)] == [long[1:]] * 2


def test_ids_that_the_model_does_not_have_are_refused_by_the_engine_itself(tiny_model, build):
    engine = build(tiny_model("llama"))
    strange = [
        ([1, 211], {}, "the prompt holds token id 211; the model has 211 tokens"),
        ([-1], {}, "the prompt holds token id -1"),
        ([1], {"logit_bias": {211: 1.0}}, "logit_bias holds token id 211"),
        ([1], {"allowed_token_ids": (5, 999)}, "allowed_token_ids holds token id 999"),
        ([1], {"bad_token_ids": ((5, 999),)}, "bad_token_ids holds token id 999"),
        ([1], {"stop_token_ids": (211,)}, "stop_token_ids holds token id 211"),
    ]
    results = run(engine, [prompt for prompt, _, _ in strange], [SamplingParams(**params) for _, params, _ in strange])
    for (_, _, words), result in zip(strange, results, strict=True):
        assert words in result["error"]
    assert run(engine, [[1]], [SamplingParams(max_tokens=2, ignore_eos=True)])[0]["error"] is None


def test_every_probability_is_one_where_only_one_token_is_allowed_and_logprobs_still_tell_the_models_own(
    tiny_model, build, reference
):
    params = SamplingParams(max_tokens=5, temperature=1.0, allowed_token_ids=(42,), logprobs=0, ignore_eos=True)
    [result] = run(build(tiny_model("llama")), [[3, 4]], [params])
    assert result["tokens"] == [42] * 5
    expected = reference([3, 4, *[42] * 5])[1:, 42].tolist()
    assert [one.logprob for one in result["logprobs"]] == pytest.approx(expected, abs=2e-4)
    assert all(-math.inf < one.logprob < 0 for one in result["logprobs"])
