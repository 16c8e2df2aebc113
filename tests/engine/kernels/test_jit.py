"""Machine code is kept where the next start finds it, for processors that can run it."""

import numba
import pytest

from pagoda_engine.kernels.cpu.jit import cache_folder
from pagoda_engine.kernels.cpu.target import TARGETS, best

V3 = {"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
V4 = {*V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}


def test_code_belongs_to_the_installation_where_that_can_be_written(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path / "user")}
    folder = cache_folder(environment, tmp_path / "installed")
    assert folder.parent == tmp_path / "installed"
    assert folder == cache_folder(environment, tmp_path / "installed"), "a second start looks in the same place"


@pytest.mark.parametrize(
    ("environment", "place"),
    [({"XDG_CACHE_HOME": "user"}, "user"), ({"HOME": "user"}, "user/.cache"), ({"HOME": "file"}, None)],
)
def test_else_it_is_kept_in_the_users_cache_or_a_temporary_folder(tmp_path, environment, place):
    (tmp_path / "file").write_text("no folder")
    environment = {name: str(tmp_path / value) for name, value in environment.items()}
    folder = cache_folder(environment, tmp_path / "file" / "installed")
    assert folder.is_relative_to(tmp_path / place / "pagoda/machine-code" if place else "/tmp")


def test_a_users_code_begins_with_the_installations(tmp_path):
    """A pod's root file system is read-only: what its image was built with is copied to its scratch volume, once."""
    installed = tmp_path / "installed"
    (cache_folder({}, installed) / "cpu").mkdir(parents=True)
    (cache_folder({}, installed) / "cpu" / "step.nbi").write_text("code")

    def start():
        return cache_folder({"HOME": str(tmp_path)}, installed, lambda folder: not folder.is_relative_to(installed))

    assert (start() / "cpu" / "step.nbi").read_text() == "code"
    (start() / "cpu" / "step.nbi").write_text("code and more")
    assert (start() / "cpu" / "step.nbi").read_text() == "code and more"
    assert [path.name for path in start().parent.iterdir()] == [start().name], "nothing half-made is left behind"


def test_the_best_target_is_the_one_whose_instructions_the_machine_has():
    def name(machine, features):
        found = best(machine, dict.fromkeys(features, True))
        return found and found.name

    assert name("x86_64", {*V4, "avx512bf16", "avx512fp16"}) == "x86-64-v4-bf16"
    assert name("AMD64", V4) == "x86-64-v4"
    assert name("x86_64", V3) == "x86-64-v3"
    assert name("x86_64", V3 - {"fma"}) is None
    assert name("aarch64", {"neon", *V3}) is None


def test_this_process_compiles_for_a_target_and_not_for_its_own_cpu():
    target = best()
    assert target.cpu == numba.config.CPU_NAME
    assert target.flags == numba.config.CPU_FEATURES
    assert target in TARGETS
