"""Threads share a job: each piece is done once, whoever comes late, and nobody is left behind."""

import gc
import threading

import numpy as np
import pytest
import torch

from pagoda_engine.kernels.cpu.norm import rms_norm
from pagoda_engine.kernels.cpu.team import Team

ROWS, SIZE, ROUNDS = 37, 16, 60


def running():
    return {thread for thread in threading.enumerate() if thread.name.startswith("pagoda-kernels")}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_job_of_many_phases_is_done_as_by_one_thread_in_every_run(size):
    """Each phase reads what the one before has written, so a phase begun too early would show."""
    team = Team(size, ROUNDS)
    weight, every = np.full(SIZE, 2.0, np.float32), np.arange(ROWS)
    scratch = np.zeros(size * SIZE, np.float32)
    start = torch.randn(ROWS, SIZE).numpy()
    wanted = start
    for _ in range(ROUNDS):
        wanted = wanted / np.sqrt((wanted**2).mean(1, keepdims=True) + 1) * 2
    for _ in range(40):
        pages = [start.reshape(-1).copy(), np.zeros(ROWS * SIZE, np.float32)]

        def job(thread, words, pages=pages):
            phase = 0
            while phase < ROUNDS:
                source, target = pages[phase % 2], pages[(phase + 1) % 2]
                phase = rms_norm(
                    words, phase, source, SIZE, every, ROWS, SIZE, weight, 0, np.float32(1), scratch, thread * SIZE,
                    target, SIZE,
                )  # fmt: skip

        team.run(job)
        np.testing.assert_allclose(pages[0].reshape(ROWS, SIZE), wanted, rtol=1e-4)
    team.close()


def test_the_threads_of_a_forgotten_team_end():
    before = running()
    team = Team(3, 1)
    threads = running() - before
    assert len(threads) == 2
    del team
    gc.collect()
    for thread in threads:
        thread.join(timeout=30)
    assert not threads & running()
