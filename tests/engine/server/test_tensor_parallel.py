"""Ranks as processes: the same text as one process gives, and an end with a clear last word when one of them dies."""

import os
import re
import signal
import threading
import time

import psutil
import pytest

from pagoda_engine import LLM, SamplingParams
from pagoda_engine.contract import EngineArgs, ExitCode
from pagoda_engine.core.request import Request
from pagoda_engine.errors import EngineDied
from pagoda_engine.model.build import build_engine
from pagoda_engine.model.parallel.ranks import Ranks

PROMPTS = ["The quick brown fox", "Привет, мир", "def main(argv):"]
OPTIONS = {"device": "cpu", "dtype": "float32", "kv_cache_memory_bytes": 1 << 20, "max_num_seqs": 4}


def rank_of(parent: int) -> psutil.Process:
    """The one rank that a process has started."""
    (rank,) = [child for child in psutil.Process(parent).children() if "parallel.rank" in " ".join(child.cmdline())]
    return rank


def test_an_offline_engine_over_two_processes_gives_the_same_text_and_names_the_rank_that_is_killed(tiny_model):
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    expected = [one.token_ids for one in LLM(str(tiny_model), **OPTIONS).generate(PROMPTS, params, use_tqdm=False)]
    llm = LLM(str(tiny_model), tensor_parallel_size=2, **OPTIONS)
    assert [one.token_ids for one in llm.generate(PROMPTS, params, use_tqdm=False)] == expected
    rank = rank_of(os.getpid())
    threading.Timer(0.3, rank.kill).start()
    endless = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    with pytest.raises(EngineDied, match=rf"rank 1 of 2 \(process {rank.pid}\) was killed by SIGKILL"):
        llm.generate(PROMPTS * 1000, endless, use_tqdm=False)


def test_a_server_over_two_processes_answers_as_one_does_and_ends_when_a_rank_is_killed_while_it_is_idle(
    launch, tiny_argv, server
):
    spread = launch(*tiny_argv, "--tensor-parallel-size", "2")
    for prompt in PROMPTS:
        body = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 24}
        texts = [one.post("/v1/completions", body).json()["choices"][0]["text"] for one in (server, spread)]
        assert texts[0] == texts[1]
    assert re.search(r"loaded .*: 1 file, 0\.00 GiB of weights in \d+\.\d s, \d+\.\d\d GiB/s", spread.log.read_text())
    rank = rank_of(spread.engine_pid())
    assert psutil.Process(spread.engine_pid()).children() == [rank]
    rank.send_signal(signal.SIGKILL)
    code, last = spread.ended()
    assert code == ExitCode.ENGINE_DIED
    assert f"rank 1 of 2 (process {rank.pid}) was killed by SIGKILL" in last


def test_an_exception_in_a_rank_ends_the_engine_with_its_message_and_no_process_is_left(tiny_model):
    args = EngineArgs(str(tiny_model), tensor_parallel_size=2, **OPTIONS)
    told = []
    ranks = Ranks(args, told.append)
    engine = build_engine(args, lambda _: None, ranks)
    rank = rank_of(os.getpid())
    ranks.step(b"\1\0\0\0")  # no step
    engine.add(Request("1", [5, 6], SamplingParams(temperature=0), frozenset(), time.monotonic()))
    with pytest.raises(EngineDied, match=r"rank 1 of 2 failed: ValueError: a step of 4 bytes ends too early"):
        engine.step()
    deadline = time.monotonic() + 60
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)  # it is told by the thread that waits for ranks
    assert [str(error) for error in told] == ["rank 1 of 2 failed: ValueError: a step of 4 bytes ends too early"]
    ranks.close()
    assert not rank.is_running()
    assert not ranks.folder.exists()


def test_a_rank_that_cannot_load_ends_the_start_with_its_own_exit_code(tiny_model, tmp_path):
    """Here it finds no model: what it is given differs from what rank 0 has."""
    ranks = Ranks(EngineArgs(str(tmp_path), tensor_parallel_size=2, **OPTIONS))
    args = EngineArgs(str(tiny_model), tensor_parallel_size=2, **OPTIONS)
    with pytest.raises(Exception, match=r"rank 1 of 2: .* holds no config\.json") as error:
        build_engine(args, lambda _: None, ranks)
    assert error.value.exit_code == ExitCode.MODEL_NOT_FOUND
    assert not ranks.folder.exists()
