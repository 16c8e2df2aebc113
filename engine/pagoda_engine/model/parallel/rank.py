"""`python -m pagoda_engine.model.parallel.rank SOCKET PARENT RANK FOLDER ENGINE-ARGS...`: a rank from start to end.

It builds its part of the model in step with rank 0, then computes what rank 0 says until the socket closes.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from pagoda_engine.contract import EngineArgs, ExitCode, Progress, Stage
from pagoda_engine.errors import PagodaError
from pagoda_engine.lifetime import end_with_parent, leave_signals_to_parent
from pagoda_engine.model.parallel.wire import Closed, Kind, PeerLost, Wire, failure_to_bytes, percent_to_bytes


def main(argv: Sequence[str]) -> int:
    """Returns the process's exit code; what went wrong is told to rank 0 first."""
    descriptor, parent, rank, folder, *engine_argv = argv
    leave_signals_to_parent()
    end_with_parent(int(parent))
    wire = Wire(socket.socket(fileno=int(descriptor)))
    try:
        _serve(EngineArgs.from_argv(engine_argv), wire, int(rank), Path(folder))
    except Closed:
        return ExitCode.OK
    except PeerLost as error:
        return error.exit_code  # it is another rank's end, which rank 0 tells of
    except PagodaError as error:
        _fail(wire, error.exit_code, str(error))
        return error.exit_code
    except Exception as error:
        _fail(wire, ExitCode.CRASHED, f"{type(error).__name__}: {error}"[:500])
        raise
    return ExitCode.OK


def _serve(args: EngineArgs, wire: Wire, rank: int, folder: Path) -> None:
    # Ranks inherit rank 0's stderr; nobody reads a bar for each.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from pagoda_engine.model.build import build_runner
    from pagoda_engine.model.inputs import StepInputs
    from pagoda_engine.model.parallel.group import Group

    def report(progress: Progress) -> None:
        if progress.stage is Stage.LOADING and progress.percent is not None:
            wire.send(Kind.PROGRESS, percent_to_bytes(progress.percent))

    group = Group(rank, args.tensor_parallel_size, folder, lambda _: _meet(wire))
    runner = build_runner(args, report, group).plain
    while True:
        runner.follow(StepInputs.from_bytes(_expect(wire, Kind.STEP)))


def _meet(wire: Wire) -> None:
    wire.send(Kind.LOADED)
    _expect(wire, Kind.JOIN)


def _expect(wire: Wire, wanted: Kind) -> bytes:
    kind, payload = wire.receive()
    if kind is not wanted:
        raise ValueError(f"rank 0 sent {kind.name}, and {wanted.name} was due")
    return payload


def _fail(wire: Wire, code: ExitCode, message: str) -> None:
    try:
        wire.send(Kind.FAILED, failure_to_bytes(code, " ".join(message.split())))
    except Closed:
        print(message, file=sys.stderr)  # nobody is left to tell but the log


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
