"""`python -m pagoda_engine.model.fused.precompile`: machine code for every processor that an image may run on.

It goes where `kernels.cpu.jit` keeps all code: with the installation. No kernel is run, so this machine need not be
able to run them. Each target has a process of its own, because Numba knows one target in a process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from pagoda_engine.kernels.cpu.target import TARGETS, best, select

if TYPE_CHECKING:
    from pagoda_engine.model.fused.runner import FusedRunner

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_SIZE: Final = 32


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="precompile", description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("--target", choices=names, action="append", help="compile for this one only; may be repeated")
    parser.add_argument("--here", action="store_true", help="compile for this machine only, if kernels run on it")
    parser.add_argument("--dtype", choices=_DTYPES, action="append", help="compile for these weights only")
    args = parser.parse_args(argv)
    if args.here:
        names = [target.name for target in filter(None, [best()])]
    targets, dtypes = args.target or names, args.dtype or list(_DTYPES)
    if not targets:
        print("the kernels do not run on this machine")
        return 0
    if len(targets) > 1:
        options = [f"--dtype={dtype}" for dtype in dtypes]
        for name in targets:
            subprocess.run([sys.executable, "-m", __spec__.name, f"--target={name}", *options], check=True)
        return 0
    select(next(target for target in TARGETS if target.name == targets[0]))
    for dtype in dtypes:
        smallest_runner(_DTYPES[dtype]).prepare()
        print(f"kernels for {targets[0]}, {dtype}")
    return 0


def smallest_runner(dtype: torch.dtype) -> FusedRunner:
    """A runner over a tiny decoder of random weights: machine code does not depend on sizes."""
    from pagoda_engine.model.fused.parts import Decoder, Layer, Norm
    from pagoda_engine.model.fused.room import Limits
    from pagoda_engine.model.fused.runner import FusedRunner

    def norm() -> Norm:
        return Norm(nn.RMSNorm(_SIZE), 1e-5)

    def linear() -> nn.Linear:
        return nn.Linear(_SIZE, _SIZE, bias=False, dtype=dtype)

    layer = Layer(
        attention_norm=norm(), query=linear(), key=linear(), value=linear(), output=linear(), query_norm=None,
        key_norm=None, mlp_norm=norm(), gate=linear(), up=linear(), down=linear(), dim=_SIZE, scale=1.0, window=None,
        rotated=False,
    )  # fmt: skip
    embedding, angles = nn.Embedding(_SIZE, _SIZE, dtype=dtype), torch.zeros(_SIZE, _SIZE // 2)
    decoder = Decoder(embedding, (layer,), norm(), linear(), angles, angles)
    return FusedRunner(decoder, Limits(tokens=_SIZE, sequences=1, context=_SIZE, scored=1, blocks=2), threads=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
