"""`pagoda local up` as a user runs it: the real command, a real engine, real HTTP; afterwards nothing is left.

The model is a tiny random Llama from a hub on this machine; the test of the real one is marked `model`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest
from e2e.hub import ModelHub

from pagoda_engine.contract import ExitCode

EXAMPLE = Path(__file__).parents[3] / "examples" / "smollm2.yaml"
START_SECONDS = 280

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with `tiny/llama`: two layers, letters for tokens, random weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("hub")
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "tiny" / "llama")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHAT_TEMPLATE
    ).save_pretrained(folder / "tiny" / "llama")
    with ModelHub(folder) as hub:
        yield hub


class Up:
    """A running `pagoda local up` with a home, a cache and a temporary folder of its own."""

    def __init__(self, folder: Path, hub_url: str, file: Path, *argv: str) -> None:
        # Not below `folder`: the path of a unix socket is short.
        self._scratch = tempfile.TemporaryDirectory(prefix="up-")
        self.scratch = Path(self._scratch.name)
        environment = os.environ | {
            "HF_ENDPOINT": hub_url,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(self.scratch),
            "OMP_NUM_THREADS": "1",
        }
        self._stderr = (folder / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pagoda_engine.cli", "local", "up", "-f", str(file), *argv],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def line(self, pattern: str) -> re.Match:
        """Read stdout up to a line that matches."""
        for line in self.process.stdout:
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"stdout ended without {pattern!r}; stderr:\n{self.stderr()}")

    def stderr(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._stderr.close()
        self._scratch.cleanup()

    def end(self) -> tuple[int, str]:
        """Exit code and the rest of stdout, once it has ended; nothing may be left of it."""
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        try:
            stdout, _ = self.process.communicate(timeout=START_SECONDS)
        finally:
            self.process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        assert list(self.scratch.glob("pagoda-*")) == []
        return self.process.returncode, stdout


@pytest.fixture
def up(tmp_path, hub):
    started = []

    def start(spec: str, *argv: str) -> Up:
        file = tmp_path / "x.yaml"
        head = "apiVersion: pagoda.dev/v1alpha1\nkind: InferenceService\nmetadata: {name: tiny}\n"
        file.write_text(f"{head}spec: {spec}\n")
        started.append(Up(tmp_path, hub.url, file, *argv))
        return started[-1]

    yield start
    for one in started:
        one.close()


TINY = "{model: {uri: hf://tiny/llama}, engine: {dtype: float32, maxNumSeqs: 4, maxModelLen: 256}}"


def test_question_is_answered_and_all_is_ended(up, free_port):
    one = up(TINY, "--port", str(free_port), "--ask", "What is it?")
    code, stdout = one.end()
    assert code == 0, one.stderr()
    header, row, _empty, question, *answer = stdout.splitlines()
    assert header.split() == [
        "NAME",
        "READY",
        "REASON",
        "MODEL",
        "GPU",
        "TP",
        "REPLICAS",
        "CACHE",
        "WAITING",
        "URL",
        "AGE",
    ]
    assert row.split()[:6] == ["tiny", "True", "Serving", "llama", "cpu", "1"]
    assert f"http://127.0.0.1:{free_port}/v1" in row
    assert question == "> What is it?"
    assert answer
    assert "ReadingModel" in one.stderr()


def test_it_serves_applies_an_edit_and_ends_by_ctrl_c(up, free_port, tmp_path):
    one = up(TINY, "--port", str(free_port))
    command = one.line(r"^curl (\S+) .* -d '(.*)'$")
    body = {**json.loads(command[2]), "max_tokens": 4}
    answer = httpx.post(command[1], json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] >= 1
    one.line("Ctrl-C")
    file = tmp_path / "x.yaml"
    file.write_text(file.read_text().replace("maxNumSeqs: 4", "maxNumSeqs: 0"))
    wait_for(one, "maxNumSeqs")
    assert httpx.post(command[1], json=body, timeout=60, trust_env=False).status_code == 200
    one.process.send_signal(signal.SIGINT)
    assert one.end()[0] == 0, one.stderr()


def wait_for(one: Up, words: str) -> None:
    for _ in range(START_SECONDS * 10):
        if words in one.stderr():
            return
        time.sleep(0.1)
    raise AssertionError(f"{words!r} was never told:\n{one.stderr()}")


def test_taken_port_is_one_line_and_its_exit_code(up, free_port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        one = up(TINY, "--port", str(free_port))
        assert one.end() == (ExitCode.PORT_IN_USE, "")
    assert one.stderr() == f"pagoda local: error: port {free_port} is in use; choose another with --port\n"


def test_bad_spec_starts_nothing(up):
    one = up("{model: {uri: hf://tiny/llama}, replicas: -1}")
    assert one.end() == (ExitCode.USAGE, "")
    assert "spec.replicas" in one.stderr()
    assert len(one.stderr().splitlines()) == 1


def test_model_that_is_not_there_is_said_with_the_fix(up, free_port):
    one = up("{model: {uri: hf://tiny/none}}", "--port", str(free_port))
    code, stdout = one.end()
    assert code not in (0, None)
    assert stdout == ""
    assert "error: tiny is not ready: ModelUnreadable" in one.stderr()


def test_engine_that_dies_is_told_with_its_last_words_and_code(up, free_port):
    spec = "{model: {uri: hf://tiny/llama}, engine: {extraArgs: [--no-such-flag]}}"
    one = up(spec, "--port", str(free_port))
    code, _ = one.end()
    assert code == ExitCode.USAGE
    assert re.search(r"last failure: Usage \(pod tiny-\S+, exit code 2\)", one.stderr())
    assert "--no-such-flag" in one.stderr()


def test_ctrl_c_before_it_serves_leaves_nothing(up, free_port):
    one = up(TINY, "--port", str(free_port))
    wait_for(one, "s]")
    one.process.send_signal(signal.SIGINT)
    assert one.end()[0] == 130, one.stderr()


@pytest.mark.model
def test_demo_answers_paris(free_port):
    """What `make demo` does, with the user's own model cache."""
    question = "What is the capital of France?"
    up = [sys.executable, "-m", "pagoda_engine.cli", "local", "up", "-f", str(EXAMPLE), "--port", str(free_port)]
    with tempfile.TemporaryDirectory(prefix="up-") as scratch:
        done = subprocess.run(
            [*up, "--ask", question],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            env=os.environ | {"TMPDIR": scratch},
        )
        assert os.listdir(scratch) == []
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
