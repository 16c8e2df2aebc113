"""The `pagoda` command: what it says without a command, of an unknown one, and of one whose packages are missing."""

import os
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pagoda_engine import cli, errors
from pagoda_engine.contract import ExitCode

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_every_command_with_its_summary(argv, capsys):
    """All that pyproject.toml declares, and each with words."""
    assert cli.main(argv) == ExitCode.OK
    out = capsys.readouterr().out
    for name in DECLARED["entry-points"]["pagoda.commands"]:
        [line] = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 3


def test_summaries_are_of_commands_that_exist():
    """A summary without its command would be a promise that is not kept."""
    known = set(DECLARED["entry-points"]["pagoda.commands"])
    assert set(cli.SUMMARIES) <= known


@pytest.mark.parametrize("argv", [["-V"], ["--version"]])
def test_the_version_is_the_distributions(argv, capsys):
    """As pyproject.toml has it."""
    assert cli.main(argv) == ExitCode.OK
    assert capsys.readouterr().out == f"pagoda {DECLARED['version']}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["serv"], "unknown command 'serv'; did you mean `pagoda serve`?"),
        (["pul", "hf://a/b"], "did you mean `pagoda pull`?"),
        (["xyzzy"], "unknown command 'xyzzy'; choose from "),
        (["--port", "1"], "unknown option '--port'; `pagoda --help` lists the commands"),
    ],
)
def test_an_unknown_command_is_answered_with_a_suggestion(argv, said, capsys):
    """One line on stderr, and the code of wrong use."""
    assert cli.main(argv) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


@pytest.mark.parametrize(
    ("command", "missing", "extra"), [("inspect", "httpx", "engine"), ("plan", "pydantic", "operator")]
)
def test_a_command_whose_packages_are_missing_names_the_extra(command, missing, extra):
    """`sys.modules[name] = None` is the interpreter's own way to say that a package is not there."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from pagoda_engine import cli; sys.exit(cli.main([{command!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr == (
        f"pagoda: error: `pagoda {command}` needs {missing}, which is not installed; "
        f"run: pip install 'pagoda-serving[{extra}]'\n"
    )


def test_a_missing_module_of_our_own_keeps_its_traceback():
    """That is a broken installation, which no extra mends."""
    code = (
        "import sys; sys.modules['pagoda_engine.source'] = None; from pagoda_engine import cli; cli.main(['inspect'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.CRASHED
    assert "Traceback" in done.stderr
    assert "pip install" not in done.stderr


def test_help_imports_nothing_but_the_contract():
    """`pagoda --help` must be there at once: no command is imported before it is asked for."""
    code = "import sys; from pagoda_engine import cli; cli.main([])\n"
    code += "print([m for m in sorted(sys.modules) if m.partition('.')[0] in {'pagoda_engine', 'torch', 'httpx'}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    expected = "['pagoda_engine', 'pagoda_engine.cli', 'pagoda_engine.contract']"
    assert done.stdout.splitlines()[-1] == expected


def test_a_reader_that_goes_away_ends_a_command_without_a_traceback():
    """As `pagoda --help | head -0` does; the code is the one of a process that SIGPIPE ended."""
    command = [sys.executable, "-m", "pagoda_engine.cli", "--help"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_installed_entry_points_are_those_declared():
    """An installation of an older checkout would lack commands; this says so before anything else fails."""
    installed = {point.name: point.value for point in entry_points(group=cli.GROUP)}
    assert installed == DECLARED["entry-points"]["pagoda.commands"]


LEAVES = [error for error in vars(errors).values() if isinstance(error, type) and error.__base__ is errors.PagodaError]


@pytest.mark.parametrize("error", LEAVES)
def test_an_error_ends_a_command_with_one_line_and_its_code(error, capsys):
    """Also where the message has lines of its own, as messages of other libraries do."""

    def fail():
        raise error("first line\n  second line")

    assert errors.run("pagoda serve", fail) == error.exit_code
    assert capsys.readouterr().err == "pagoda serve: error: first line second line\n"


def test_each_error_has_an_exit_code_of_its_own_and_is_drawn():
    """The codes from 10 on are exactly the leaves of the tree, and the tree is in the module's docstring."""
    codes = [error.exit_code for error in LEAVES]
    assert sorted(codes) == [code for code in ExitCode if code >= 10]
    for error in LEAVES:
        assert error.exit_code.reason == error.__name__
        assert f"{error.__name__} " in errors.__doc__
        assert error.exit_code.name in errors.__doc__


def test_what_is_no_error_of_ours_passes_through():
    """A defect keeps its traceback."""

    def crash():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        errors.run("pagoda serve", crash)
    assert errors.run("pagoda serve", lambda: None) == ExitCode.OK
    assert errors.run("pagoda serve", lambda: 3) == 3


@pytest.mark.parametrize(("pid", "code"), [(1, 128 + signal.SIGTERM), (2, -signal.SIGTERM)])
def test_a_containers_first_process_can_be_ended_from_its_first_moment(pid, code):
    """Its handler ends it, since the kernel would not; any other process is left to the kernel."""
    script = f"""
import os, signal, time
from pagoda_engine import cli
me, os.getpid = os.getpid(), lambda: {pid}
cli._run = lambda _: (os.kill(me, signal.SIGTERM), time.sleep(10))
cli.main([])
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == code
