"""`pagoda local up`: serve an InferenceService on this machine, without a cluster."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pagoda_operator.local.addresses import NoAddress
from pagoda_operator.local.session import UpError, UpOptions
from pagoda_operator.local.up import default_cache, up


def main(argv: Sequence[str]) -> int:
    """Run `pagoda local ARGV`. Exit codes: 0 answered or stopped by Ctrl-C while serving, 2 for an unusable file, 13
    for a taken port, 130 for Ctrl-C before it served, else that of the container that failed, or 1."""
    options = parser().parse_args(list(argv))
    level = logging.INFO if options.verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        return asyncio.run(
            up(UpOptions(options.filename, port=options.port, cache=options.cache, ask=options.ask), sys.stdout)
        )
    except (UpError, NoAddress, OSError) as error:
        for line in str(error).splitlines():
            print(f"pagoda local: error: {line}", file=sys.stderr)
        return error.code if isinstance(error, UpError) else 1


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="pagoda local", description="Serve without a cluster.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up_parser = commands.add_parser(
        "up", help="serve a file's InferenceService on this machine until Ctrl-C", allow_abbrev=False
    )
    up_parser.add_argument(
        "-f", "--filename", type=Path, required=True, help="YAML file with an InferenceService, and Secrets"
    )
    up_parser.add_argument("--port", type=int, default=8000, help="port of the API on 127.0.0.1 (default 8000)")
    up_parser.add_argument("--ask", metavar="TEXT", help="ask this once, print the answer, and stop")
    up_parser.add_argument(
        "--cache", type=Path, default=default_cache(), help=f"folder of models (default {default_cache()})"
    )
    up_parser.add_argument("-v", "--verbose", action="store_true", help="log what the operator does")
    return parser
