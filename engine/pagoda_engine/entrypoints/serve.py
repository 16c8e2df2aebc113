"""`pagoda serve MODEL`: an OpenAI-compatible server for one model.

The flags are `contract.EngineArgs`; `PAGODA_API_KEY` in the environment makes `/v1` ask for a key. The port is open
before the model is loaded, and `/ready` says how far that is.

What takes longest is begun first: the engine process imports torch while this one imports its web framework, which is
why that is imported late.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from pagoda_engine.contract import EngineArgs, ExitCode
from pagoda_engine.errors import run
from pagoda_engine.process.supervisor import Death, EngineProcess
from pagoda_engine.server.limits import Limits
from pagoda_engine.server.listener import listen
from pagoda_engine.server.signals import Signals

PROG: Final = "pagoda serve"


def main(argv: Sequence[str]) -> int:
    """Serve until a signal or the engine's end. Returns a `contract.ExitCode`."""
    args = EngineArgs.from_argv(argv, PROG)
    try:
        limits = Limits.from_environment()
        template = _read_template(args.chat_template)
    except (ValueError, OSError) as error:
        return _complain(str(error), ExitCode.USAGE)
    return run(PROG, lambda: _serve(args, limits, template))


def _serve(args: EngineArgs, limits: Limits, template: str | None) -> int:
    listener = listen(args.host, args.port)
    # The address is the one line on stdout: with --port 0 whoever started us reads the port from it.
    print(f"listening on {_url(listener)}", flush=True)
    death = uvloop.run(_run(args, limits, template, listener))
    return _complain(death.message, death.exit_code) if death.exit_code else ExitCode.OK


async def _run(args: EngineArgs, limits: Limits, template: str | None, listener: socket.socket) -> Death:
    signals = Signals()
    process = await EngineProcess.start(args)
    try:
        from pagoda_engine.server.app import build_app
        from pagoda_engine.server.http_server import HttpServer
        from pagoda_engine.server.state import Serving

        serving = Serving(args, limits, template)
        app = build_app(serving, os.environ.get("PAGODA_API_KEY"))
        return await HttpServer(serving, app, listener, signals).run(process)
    finally:
        await process.stop()


def _read_template(path: str | None) -> str | None:
    """The text of --chat-template. Raises OSError, or ChatTemplateError (a ValueError)."""
    if path is None:
        return None
    from pagoda_engine.server.chat_template import ChatTemplate, ChatTemplateError

    text = Path(path).read_text()
    try:
        ChatTemplate(text, {})
    except ChatTemplateError as error:
        raise ChatTemplateError(f"--chat-template {path} is {error}") from error
    return text


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _complain(message: str, code: ExitCode) -> int:
    print(f"{PROG}: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code
