"""What may import what, asked of fresh interpreters; import-linter holds the same of the source text.

A folder called `operator` that is itself a package would shadow the standard library for whoever has it on sys.path.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OPERATOR = REPOSITORY / "operator"
ENGINE = REPOSITORY / "engine"

# The guard refuses a module as if it were not installed, so that an import that falls back without it still passes.
GUARD = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            raise ModuleNotFoundError(f"{{name}} is forbidden here", name=name)

sys.meta_path.insert(0, Refuse())
for name in {names!r}:
    __import__(name)
loaded = sorted({forbidden!r} & {{name.partition(".")[0] for name in sys.modules}})
sys.exit(f"loaded: {{loaded}}" if loaded else None)
"""

TORCH = {"torch", "transformers", "triton", "accelerate", "numba"}
HTTP = {"fastapi", "starlette", "uvicorn", "uvloop", "msgpack"}


def modules(root: Path, package: str) -> list[str]:
    """Dotted names of all modules of a package, the package itself among them; of a module, its own."""
    place = root / package.replace(".", "/")
    paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    names = (".".join(path.relative_to(root).with_suffix("").parts) for path in paths)
    return [name.removesuffix(".__init__") for name in names]


def run(code: str, *flags: str, cwd: Path = REPOSITORY) -> None:
    result = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr


def imports(names: list[str], forbidden: set[str]) -> None:
    assert names, "there is nothing to import"
    run(GUARD.format(names=names, forbidden=forbidden))


@pytest.mark.parametrize("folder", ["operator", "engine", "tests"])
def test_folders_of_packages_are_no_packages(folder):
    """No `__init__.py` in operator/, engine/, tests/, nor below tests/."""
    root = REPOSITORY / folder
    found = [root / "__init__.py"] if folder != "tests" else list(root.rglob("__init__.py"))
    assert [path for path in found if path.exists()] == []


@pytest.mark.parametrize("cwd", [REPOSITORY, OPERATOR, REPOSITORY / "tests"], ids=lambda path: path.name)
def test_operator_is_the_standard_librarys(cwd):
    """`import operator` finds the standard library from wherever Python is started."""
    run(
        "import operator, os; assert operator.__file__ == os.path.join(os.path.dirname(os.__file__), 'operator.py')",
        cwd=cwd,
    )


def test_the_operator_never_loads_torch():
    """Every module of the operator imports where no engine's dependency is installed, as in its image."""
    imports(modules(OPERATOR, "pagoda_operator"), TORCH | HTTP - {"uvloop"})


@pytest.mark.parametrize("name", ["pagoda_engine", "pagoda_engine.contract", "pagoda_engine.sampling_params"])
def test_the_seam_needs_the_standard_library_alone(name):
    """What both halves share imports with nothing installed (`python -S` has no site-packages)."""
    run(f"import sys; sys.path.insert(0, {str(ENGINE)!r}); import {name}", "-S")


@pytest.mark.parametrize("package", ["pagoda_engine.core", "pagoda_engine.ipc", "pagoda_engine.source"])
def test_what_decides_and_what_carries_needs_no_torch(package):
    """Scheduler, blocks, messages and sources of models run, and are tested, without torch."""
    imports(modules(ENGINE, package), TORCH)


@pytest.mark.parametrize("command", ["pull", "inspect"])
def test_commands_of_the_operators_image_need_no_torch(command):
    """The operator runs `pagoda inspect` in its own image."""
    imports([f"pagoda_engine.entrypoints.{command}", "pagoda_engine.cli"], TORCH | HTTP)


def test_the_http_process_never_loads_torch():
    """The server's modules import without torch: its process starts at once, and shares no GIL with the device."""
    imports(modules(ENGINE, "pagoda_engine.server"), TORCH)


def test_the_engine_core_needs_no_server():
    """`LLM` and the model runner import where no HTTP dependency is installed."""
    imports([*modules(ENGINE, "pagoda_engine.model"), *modules(ENGINE, "pagoda_engine.llm")], HTTP)


def test_commands_list_themselves_without_their_dependencies():
    """`pagoda --help` loads neither torch nor kopf."""
    imports(["pagoda_engine.cli"], TORCH | HTTP | {"kopf", "kubernetes", "pydantic"})
