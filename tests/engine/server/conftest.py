"""A tiny real model on disk, the real `pagoda serve` as a process around it, and clients."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Die Größe der Bäume überrascht. Ça va très bien, naïve façade!",
    "你好，世界。机器学习很有趣。 こんにちは世界。 안녕하세요 세계. Привет, мир! مرحبا بالعالم 🙂🚀👩‍👩‍👧",
    'def main(argv): return [x**2 for x in range(10)]  # numbers 0123456789\n\n\tindented {"json": true}',
] * 3

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
START_SECONDS = 120


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE with few merges, so that most characters outside of ASCII are several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tokenizer) -> Path:
    """A random Llama of two layers with a tokenizer of its own, saved as transformers saves models."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL_TOKENS[2:],
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder)
    return folder


@dataclasses.dataclass
class Server:
    """A running `pagoda serve`."""

    process: subprocess.Popen
    url: str
    log: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)

    def post(self, path: str, body, **options) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def wait_ready(self) -> None:
        wait_for(lambda: self.get("/ready").status_code == 200, self)

    def metric(self, name: str, **labels) -> float:
        """The sum of a metric's samples with these labels."""
        total, found = 0.0, False
        for line in self.get("/metrics").text.splitlines():
            match = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                have = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                if labels.items() <= have.items():
                    total, found = total + float(match[3]), True
        assert found, f"/metrics has no {name} with {labels}"
        return total

    def engine_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1, f"one engine process is expected: {children}"
        return int(children[0])

    def openai(self, **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60, **options)

    def quiet(self) -> None:
        """Wait until the engine has nothing left: every gauge is back at 0."""
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        wait_for(lambda: all(self.metric(name) == 0 for name in names), self, seconds=30)


def wait_for(condition, server: Server | None = None, seconds: float = START_SECONDS):
    """Poll until the condition holds; fail with the server's log when it does not."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        log = server.log.read_text()[-3000:] if server else ""
        assert server is None or server.process.poll() is None, f"the server ended by itself:\n{log}"
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{log}"
        time.sleep(0.02)
    return result


class Launcher:
    """Starts servers, and ends those that a test leaves running."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[Server] = []

    def __call__(self, *argv: str, ready: bool = True, **environment: str) -> Server:
        server = self.start(*argv, **environment)
        if ready:
            server.wait_ready()
        return server

    def start(self, *argv: str, **environment: str) -> Server:
        log = self._folder / f"serve-{len(self._servers)}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "pagoda_engine.cli", "serve", *argv, "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            )
        line = process.stdout.readline()
        match = re.search(r"http://\S+", line)
        server = Server(process, match[0] if match else "", log)
        self._servers.append(server)
        assert match, f"the first line names no address: {line!r}\n{log.read_text()}"
        return server

    def close(self) -> None:
        for server in self._servers:
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)
        for server in self._servers:
            try:
                server.process.wait(20)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
            server.process.stdout.close()


@pytest.fixture
def launch(tmp_path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.close()


@pytest.fixture(scope="session")
def tiny_argv(tiny_model) -> list[str]:
    """Arguments for the tiny model: float32, on the CPU, 16 requests at once."""
    return [
        str(tiny_model),
        "--served-model-name",
        "tiny",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--max-num-seqs",
        "16",
        "--kv-cache-memory-bytes",
        str(2 * 2**20),
    ]


@pytest.fixture(scope="session")
def server(tiny_argv, tmp_path_factory) -> Iterator[Server]:
    """One server for all tests that leave it as they found it."""
    launcher = Launcher(tmp_path_factory.mktemp("server"))
    yield launcher(*tiny_argv)
    launcher.close()


@pytest.fixture
def client(server) -> Iterator[openai.OpenAI]:
    with server.openai() as client:
        yield client


def events(text: str) -> list[dict]:
    """The JSON documents of a stream that ends as it should."""
    lines = [line for line in text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
