"""The `pagoda` command: finds the sub-command among the entry points and hands it the rest of the argv.

Every command is an entry point of the group `pagoda.commands`, a function `main(argv: Sequence[str]) -> int`, so that
neither package imports the other for the CLI's sake, and `pagoda --help` loads neither torch nor kopf; for the same
reason the summaries stand here and are not read from the commands' own modules.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points, version

from pagoda_engine.contract import ExitCode

DISTRIBUTION = "pagoda-serving"
GROUP = "pagoda.commands"

SUMMARIES: Mapping[str, str] = {
    "serve": "serve a model over OpenAI's API",
    "pull": "fetch a model into a cache",
    "inspect": "print what planning needs to know of a model, as JSON",
    "operator": "run the operator of a cluster",
    "plan": "show what an InferenceService would become, without a cluster",
    "local": "run an InferenceService on this machine, without a cluster",
    "bench": "measure a running server",
}

# The extra that brings a package's dependencies, by the package that an entry point lives in.
_EXTRAS: Mapping[str, str] = {"pagoda_engine": "engine", "pagoda_operator": "operator"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pagoda ARGV` and return its exit code. Errors of use are one line on stderr and ExitCode.USAGE."""
    if os.getpid() == 1:
        # The kernel ignores SIGTERM's default for a container's first process: one that is told to end before its
        # command listens would go on, and hold its place until it is killed.
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`). Nothing more may be written, by the interpreter neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _run(arguments: Sequence[str]) -> int:
    commands = {point.name: point for point in entry_points(group=GROUP)}
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage(commands))
        return ExitCode.OK
    if arguments[0] in ("-V", "--version"):
        print(f"pagoda {version(DISTRIBUTION)}")
        return ExitCode.OK
    name, *rest = arguments
    if name not in commands:
        return _complain(_unknown(name, commands))
    return _dispatch(commands[name], rest)


def _dispatch(command: EntryPoint, arguments: Sequence[str]) -> int:
    try:
        return int(command.load()(arguments) or ExitCode.OK)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        package = command.module.partition(".")[0]
        if missing in _EXTRAS or package not in _EXTRAS:
            raise  # a module of ours is missing: a broken installation, which the traceback tells best
        fix = f"pip install '{DISTRIBUTION}[{_EXTRAS[package]}]'"
        return _complain(f"`pagoda {command.name}` needs {missing}, which is not installed; run: {fix}")
    except KeyboardInterrupt:
        return 130  # as a shell counts a process ended by SIGINT


def _usage(commands: Mapping[str, EntryPoint]) -> str:
    order = [*SUMMARIES, *sorted(commands.keys() - SUMMARIES.keys())]
    width = max(map(len, order))
    lines = [f"  {name:{width}}  {SUMMARIES.get(name, '')}".rstrip() for name in order if name in commands]
    return "\n".join(
        [
            "usage: pagoda COMMAND [ARGUMENTS]",
            "",
            "Serve LLMs on Kubernetes from one YAML, or on this machine without a cluster.",
            "",
            *lines,
            "",
            "`pagoda COMMAND --help` explains a command; `pagoda --version` prints the version.",
        ]
    )


def _unknown(name: str, commands: Mapping[str, EntryPoint]) -> str:
    if name.startswith("-"):
        return f"unknown option {name!r}; `pagoda --help` lists the commands"
    close = difflib.get_close_matches(name, commands, n=1)
    hint = f"did you mean `pagoda {close[0]}`?" if close else f"choose from {', '.join(sorted(commands))}"
    return f"unknown command {name!r}; {hint}"


def _complain(problem: str) -> int:
    print(f"pagoda: error: {problem}", file=sys.stderr)
    return ExitCode.USAGE


if __name__ == "__main__":
    sys.exit(main())
