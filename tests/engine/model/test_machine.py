"""Threads, memory and cache sizes, as cgroups and machines state them."""

import os

import pytest

from pagoda_engine.errors import DeviceNotFound, OutOfMemory
from pagoda_engine.model import cache_size
from pagoda_engine.model.device import available_memory, cpu_threads, resolve_device

GIB = 1 << 30


@pytest.fixture
def cgroup(tmp_path):
    def make(**files):
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("quota", "threads"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1)]
)
def test_threads_are_the_lesser_of_affinity_and_quota(cgroup, monkeypatch, quota, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpu_threads(cgroup(cpu__max=quota)) == threads


def test_threads_respect_the_users_own_number(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads(cgroup(cpu__max="max 100000")) == 3


def test_memory_is_what_the_cgroup_leaves_of_the_machines(cgroup, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable:    8388608 kB\n")
    assert available_memory(cgroup(memory__max="max", memory__current="5"), meminfo) == 8 * GIB
    assert available_memory(cgroup(memory__max=str(4 * GIB), memory__current=str(GIB)), meminfo) == 3 * GIB
    assert available_memory(cgroup(memory__max=str(4 * GIB), memory__current=str(5 * GIB)), meminfo) == 0


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(DeviceNotFound, match="sees no GPU"):
        resolve_device("cuda")


def test_a_cpus_cache_is_modest():
    assert cache_size.cpu_cache_bytes(100 * GIB) == 2 * GIB
    assert cache_size.cpu_cache_bytes(4 * GIB) == GIB


def test_a_gpus_cache_is_what_utilization_leaves():
    assert cache_size.gpu_cache_bytes(100 * GIB, 0.9, used_by_others=10 * GIB, peak=30 * GIB) == 50 * GIB
    assert cache_size.gpu_cache_bytes(100 * GIB, 0.5, used_by_others=30 * GIB, peak=30 * GIB) == 0


def test_blocks_are_as_many_as_fit_and_no_more_than_can_be_filled():
    assert cache_size.num_blocks(1000, 10, 16, max_model_len=160, max_num_seqs=64) == 100
    assert cache_size.num_blocks(1000, 10, 16, max_model_len=160, max_num_seqs=2) == 20


def test_a_cache_too_small_for_one_sequence_is_refused_with_the_length_that_fits():
    with pytest.raises(OutOfMemory, match="--max-model-len 1600 or less"):
        cache_size.num_blocks(1000, 10, 16, max_model_len=1601, max_num_seqs=1)
