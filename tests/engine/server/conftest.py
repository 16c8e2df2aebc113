"""A tiny real model on disk, the real `pagoda serve` as a process around it, and clients."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import shutil
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
START_SECONDS = 240


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

    def __post_init__(self):
        # One client for all: making one reads all certificates, which is dear to who polls. No kept connections, so
        # that a server which ends is not met half-way.
        self._http = httpx.Client(base_url=self.url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def close(self) -> None:
        """End the process and what the test holds of it."""
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._http.close()

    def post(self, path: str, body, **options) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self._http.post(path, content=json.dumps(body), headers=headers, **options)

    def wait_ready(self) -> None:
        self.wait_for(lambda: self.get("/ready").status_code == 200)

    def wait_for(self, condition, seconds: float = START_SECONDS):
        """Poll until the condition holds, and return what it gave; fail with the server's log when it does not."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            log = self.log.read_text()[-3000:]
            assert self.process.poll() is None, f"the server ended by itself:\n{log}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{log}"
            time.sleep(0.02)
        return result

    def ended(self, seconds: float = 60) -> tuple[int, str]:
        """The exit code and the log's last line, once the server has ended."""
        code = self.process.wait(seconds)
        return code, self.log.read_text().rstrip().rpartition("\n")[2]

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
        """The server's one child, once it is there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(self.wait_for(lambda: children.read_text()))

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The engine makes no step inside: what is asked meanwhile is all there when it goes on."""
        engine = self.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(engine, signal.SIGCONT)

    def openai(self, **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60, **options)

    def quiet(self) -> None:
        """Wait until the engine has nothing left: every gauge is back at 0."""
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        self.wait_for(lambda: all(self.metric(name) == 0 for name in names), seconds=60)

    @contextlib.asynccontextmanager
    async def watched(self):
        """The most requests seen `running` and `waiting` at once while the block runs, in the dictionary it yields."""
        peaks = {"running": 0.0, "waiting": 0.0}

        async def watch():
            while True:
                for name in peaks:
                    value = await asyncio.to_thread(self.metric, f"vllm:num_requests_{name}")
                    peaks[name] = max(peaks[name], value)
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watch())
        try:
            yield peaks
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    @staticmethod
    def events(text: str) -> list[dict]:
        """The JSON documents of a stream that ends as it should."""
        lines = [line for line in text.split("\n\n") if line]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


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
        if match is None:
            process.kill()
            pytest.fail(f"the first line names no address: {line!r}\n{log.read_text()}")
        server = Server(process, match[0], log)
        self._servers.append(server)
        return server

    def close(self) -> None:
        for server in self._servers:
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)
        for server in self._servers:
            server.close()


@pytest.fixture(scope="session")
def launcher_type() -> type[Launcher]:
    """For modules that start a server of their own."""
    return Launcher


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
def endless_argv(tiny_model, tiny_argv, tmp_path_factory) -> list[str]:
    """The same with a context of 32768 tokens: an answer of 32000 outlasts whatever a test does meanwhile."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("models") / "endless")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32768}))
    return [str(folder), *tiny_argv[1:-1], str(64 * 2**20)]


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
