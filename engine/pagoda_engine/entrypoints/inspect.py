"""`pagoda inspect MODEL`: print what planning needs to know of a model, as JSON, without loading weights.

The operator runs it as a process of its own, so that a hostile file or a slow hub costs it neither memory nor time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from pagoda_engine import errors, source

PROG: Final = "pagoda inspect"


def main(argv: Sequence[str]) -> int:
    """Print a `ModelFacts` document on stdout and return the contract's exit code."""
    args = parser().parse_args(argv)
    return errors.run(PROG, lambda: print(source.facts(args.model).to_json(), flush=True))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("model", help="a URI (hf://, pypi://), a model's folder, or a .gguf file")
    return parser
