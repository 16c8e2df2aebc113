"""A row's softmax: scores in, probabilities that are not yet divided by their sum out, as elements for a product.

2^y is computed without a table: the whole part of y becomes an exponent, and a polynomial of degree 6 does the rest.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
import math
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pagoda_engine.kernels.cpu.lanes import (
    F32,
    I32,
    LANES,
    LANES_F32,
    LANES_I32,
    ZERO,
    call,
    i64,
    is_bf16,
    load,
    loop,
    pointer,
    splat,
    store,
    to_bf16,
)

POWER_OF_2: Final = (
    2.170225487e-04, 1.895036446e-03, 1.360259753e-02, 7.849350232e-02, 3.397315304e-01, 9.802581791e-01,
    1.414213563e00,
)  # fmt: skip
"""2^(f + 1/2) for f from -1/2 to 1/2 as a polynomial, highest power first; the relative error is below 1e-7."""


@intrinsic
def soften(typing_context, scores, at, low, high, panels, scale, chances):  # noqa: ANN001, ANN201, ARG001
    """`chances[at + t] = e^(scale * (scores[at + t] - largest))`, 0 where t is not from `low` to `high`; their sum.

    t runs through `panels` panels of sixteen. scores: float32; chances: elements; `scale`, float32, is above 0. The
    largest is that of the scores from `low` to `high`. A NaN among them comes out as NaN.
    """
    signature = types.float32(scores, at, low, high, panels, scale, chances)

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        source = pointer(context, builder, signature, args, 0, args[1])
        target = pointer(context, builder, signature, args, 6, args[1])
        low, high = (splat(builder, builder.trunc(args[number], I32)) for number in (2, 3))
        lane_numbers = ir.Constant(LANES_I32, list(range(LANES)))

        def panel(number: Any) -> tuple[Any, Any, Any]:
            """A panel's place, its scores, and which of them count."""
            place = builder.mul(number, i64(LANES))
            here = builder.add(splat(builder, builder.trunc(place, I32)), lane_numbers)
            counts = builder.and_(builder.icmp_signed(">=", here, low), builder.icmp_signed("<", here, high))
            return place, load(builder, builder.gep(source, [place]), LANES_F32), counts

        def find(number: Any, carried: list[Any]) -> list[Any]:
            _, score, counts = panel(number)
            better = builder.and_(counts, builder.fcmp_ordered(">", score, carried[0]))
            return [builder.select(better, score, carried[0])]

        def raise_(number: Any, carried: list[Any]) -> list[Any]:
            place, score, counts = panel(number)
            power = _power_of_2(builder, builder.fmul(builder.fsub(score, best), factor))
            power = builder.select(counts, power, ZERO)
            element = to_bf16(context, builder, power) if is_bf16(chances) else power
            store(builder, element, builder.gep(target, [place]))
            return [builder.fadd(carried[0], power)]

        (tops,) = loop(builder, args[4], [_every(float("-inf"))], find)
        best = splat(builder, call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", F32, [tops]))
        factor = splat(builder, builder.fmul(args[5], ir.Constant(F32, math.log2(math.e))))
        (sums,) = loop(builder, args[4], [ZERO], raise_)
        # Any order of the sixteen will do.
        return call(
            builder, f"llvm.vector.reduce.fadd.v{LANES}f32", F32, [ir.Constant(F32, -0.0), sums], fastmath=("reassoc",)
        )

    return signature, codegen


def _power_of_2(builder: Any, y: Any) -> Any:
    """2^y of sixteen lanes, for y up to 0; 2^-126 stands for all that is less. A NaN stays one."""
    y = builder.select(builder.fcmp_ordered("<", y, _every(-126.0)), _every(-126.0), y)
    y = builder.fsub(y, _every(0.5))
    whole = call(builder, f"llvm.roundeven.v{LANES}f32", LANES_F32, [y])
    f = builder.fsub(y, whole)
    first, *others = POWER_OF_2
    power = _every(first)
    for coefficient in others:
        power = call(builder, f"llvm.fma.v{LANES}f32", LANES_F32, [power, f, _every(coefficient)])
    # A NaN is no integer; the power is NaN already.
    whole = builder.select(builder.fcmp_ordered("ord", whole, whole), whole, ZERO)
    exponent = builder.add(builder.fptosi(whole, LANES_I32), ir.Constant(LANES_I32, [127] * LANES))
    bits = builder.shl(exponent, ir.Constant(LANES_I32, [23] * LANES))
    return builder.fmul(power, builder.bitcast(bits, LANES_F32))


def _every(number: float) -> ir.Constant:
    return ir.Constant(LANES_F32, [number] * LANES)
