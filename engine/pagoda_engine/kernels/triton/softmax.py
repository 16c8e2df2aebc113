"""The softmax that goes along, as decoding and prompts share it: device functions.

Everything is in base 2, for which the hardware has an instruction: a score is multiplied by `scale`, which holds
log2(e), and 2^x replaces e^x. With a soft cap a score first becomes tanh(score * scale / softcap); the two factors are
then `squash` and `scale`, as `factors` computes them.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"
# Triton is untyped, and types inside a kernel are Triton's.
# ruff: noqa: ANN001, ANN201, N803 - Triton's habit: what is known when compiling is in capitals
import math
from typing import Final

import triton
import triton.language as tl

LOG2E: Final = math.log2(math.e)
_LOG2E = tl.constexpr(LOG2E)


def factors(scale: float, softcap: float | None) -> tuple[float, float | None]:
    """`scale` and `squash`: what a score, and what an argument of the tanh (if there is one) is multiplied by."""
    if softcap is None:
        return scale * LOG2E, None
    return softcap * LOG2E, 2 * LOG2E * scale / softcap  # tanh(x) is computed of 2^(2 x log2(e))


@triton.jit
def squashed(scores, squash):
    """tanh, exact to 1e-7 in absolute terms, which is what matters to a sum of logits; no overflow: 2^128 is inf."""
    return 1 - 2 / (tl.exp2(scores * squash) + 1)


@triton.jit
def turn(scores, values, sums, top, total, scale, MASKED: tl.constexpr):
    """One more tile: scores [rows, tokens] before `scale`, -inf where hidden; values [tokens, dim].

    Returns sums [rows, dim], the largest scaled score and the total of the powers, each [rows], brought up to date.
    With MASKED, a row may have seen nothing yet, and stays what it was.
    """
    best = tl.maximum(top, tl.max(scores, 1) * scale)
    pivot = tl.where(best == float("-inf"), 0.0, best) if MASKED else best
    powers = tl.exp2(scores * scale - pivot[:, None])
    kept = tl.exp2(top - pivot)
    total = total * kept + tl.sum(powers, 1)
    sums = sums * kept[:, None]
    # The precision matters to float32 only: by default the tensor cores would round it to 10 bits.
    sums = tl.dot(powers.to(values.dtype), values, sums, input_precision="ieee")
    return sums, best, total


@triton.jit
def finish(sums, top, total, sinks, head, real):
    """The output [rows, dim]: sums over their totals, in which a head's sink counts as one more score.

    A row without tokens has a total of 0 and gets zeros.
    """
    if sinks is not None:
        sink = tl.load(sinks + head, mask=real, other=0.0).to(tl.float32) * _LOG2E
        best = tl.maximum(top, sink)
        kept = tl.exp2(top - best)
        total = total * kept + tl.exp2(sink - best)
        sums = sums * kept[:, None]
    return sums / tl.where(total == 0, 1.0, total)[:, None]
