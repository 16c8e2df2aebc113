"""The one inner loop of all matrix products: a few rows times a few panels of sixteen columns, sums in registers.

Rows of `x` are contiguous, `x_stride` elements apart. A panel holds sixteen columns of the other matrix, depth by
depth: [depth, 16] of float32, or [depth / 2, 16, 2] of bfloat16 in uint16, so that one load brings sixteen lanes. The
sums are float32. Offsets and strides are in elements. `panels` is a literal, and there is code for several numbers of
rows: more rows than are asked for may be read and written.

Three ways to find the panels: side by side (weights), one in each block of a paged cache (keys), and side by side in
each block, with the depth running through the blocks (values).
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from collections.abc import Callable, Sequence
from typing import Any, Final

from numba import types
from numba.extending import intrinsic

from pagoda_engine.kernels.cpu.lanes import (
    I32,
    I64,
    LANES,
    LANES_F32,
    LANES_I32,
    ZERO,
    i64,
    is_bf16,
    load,
    loop,
    multiply_add,
    pointer,
    splat,
    store,
)

# ruff: noqa: ANN001, ANN201, ANN202, ARG001, E501 - Numba fixes what intrinsics look like


@intrinsic(prefer_literal=True)
def linear_tile(typing_context, panels, rows, x, x_at, x_stride, w, w_at, w_stride, depth, add, y, y_at, y_stride):
    """`y[r] (+)= x[r] . w` for `panels` panels that lie `w_stride` apart; `add` (bool) keeps what `y` holds.

    `rows` is at most 8, or 2 where there are four panels.
    """
    signature = types.void(panels, rows, x, x_at, x_stride, w, w_at, w_stride, depth, add, y, y_at, y_stride)

    def codegen(context, builder, signature, args):
        first = pointer(context, builder, signature, args, 5, args[6])
        starts = [builder.gep(first, [builder.mul(args[7], i64(p))]) for p in range(panels.literal_value)]
        steps = builder.sdiv(args[8], i64(2 if is_bf16(w) else 1))

        def emit(count: int) -> None:
            targets = _targets(context, builder, signature, args, 10, count, panels.literal_value)
            totals = [builder.select(args[9], load(builder, target, LANES_F32), ZERO) for target in targets]
            multiply = _multiplier(context, builder, is_bf16(w), _rows(context, builder, signature, args, 2, count))
            totals = loop(builder, steps, totals, lambda k, sums: multiply(sums, k, starts, k))
            _store_all(builder, totals, targets)

        _for_rows(builder, args[1], (1, 2) if panels.literal_value == 4 else (4, 8), emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def score_tile(typing_context, panels, rows, x, x_at, x_stride, w, w_at, table, table_at, block, depth, y, y_at, y_stride):  # fmt: skip
    """`y[r] = x[r] . w`, panel p at `w_at + table[table_at + p] * block`: queries times the keys of some blocks."""
    signature = types.void(panels, rows, x, x_at, x_stride, w, w_at, table, table_at, block, depth, y, y_at, y_stride)

    def codegen(context, builder, signature, args):
        first = pointer(context, builder, signature, args, 5, args[6])
        entries = pointer(context, builder, signature, args, 7, args[8])
        starts = [_in_block(builder, first, entries, i64(p), args[9]) for p in range(panels.literal_value)]
        steps = builder.sdiv(args[10], i64(2 if is_bf16(w) else 1))

        def emit(count: int) -> None:
            targets = _targets(context, builder, signature, args, 11, count, panels.literal_value)
            multiply = _multiplier(context, builder, is_bf16(w), _rows(context, builder, signature, args, 2, count))
            totals = loop(builder, steps, [ZERO] * len(targets), lambda k, sums: multiply(sums, k, starts, k))
            _store_all(builder, totals, targets)

        _for_rows(builder, args[1], _HEADS if panels.literal_value > 1 else (8,), emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def value_tile(typing_context, panels, rows, x, x_at, x_stride, w, w_at, table, table_at, block, blocks, y, y_at, y_stride):  # fmt: skip
    """`y[r] = x[r] . w`, the depth running through `blocks` blocks of sixteen: probabilities times values.

    In block j the panels lie side by side at `w_at + table[table_at + j] * block`.
    """
    signature = types.void(panels, rows, x, x_at, x_stride, w, w_at, table, table_at, block, blocks, y, y_at, y_stride)

    def codegen(context, builder, signature, args):
        first = pointer(context, builder, signature, args, 5, args[6])
        entries = pointer(context, builder, signature, args, 7, args[8])
        steps = LANES // 2 if is_bf16(w) else LANES

        def emit(count: int) -> None:
            targets = _targets(context, builder, signature, args, 11, count, panels.literal_value)
            multiply = _multiplier(context, builder, is_bf16(w), _rows(context, builder, signature, args, 2, count))

            def body(j: Any, totals: list[Any]) -> list[Any]:
                start = _in_block(builder, first, entries, j, args[9])
                starts = [builder.gep(start, [i64(p * LANES * LANES)]) for p in range(panels.literal_value)]
                base = builder.mul(j, i64(steps))
                for k in range(steps):
                    totals = multiply(totals, builder.add(base, i64(k)), starts, i64(k))
                return totals

            _store_all(builder, loop(builder, args[10], [ZERO] * len(targets), body), targets)

        _for_rows(builder, args[1], _HEADS if panels.literal_value > 1 else (8,), emit)
        return context.get_dummy_value()

    return signature, codegen


_HEADS: Final = (1, 2, 3, 4, 8)
"""Rows that attention computes at once: a decoding token has as many as query heads share a KV head."""


def _for_rows(builder: Any, rows: Any, choices: Sequence[int], emit: Callable[[int], None]) -> None:
    """Code for each of some numbers of rows, of which the first that is enough is run."""
    after = builder.append_basic_block("done")
    for count in choices[:-1]:
        these, more = builder.append_basic_block("these"), builder.append_basic_block("more")
        builder.cbranch(builder.icmp_signed("<=", rows, i64(count)), these, more)
        builder.position_at_end(these)
        emit(count)
        builder.branch(after)
        builder.position_at_end(more)
    emit(choices[-1])
    builder.branch(after)
    builder.position_at_end(after)


_Multiply = Callable[[list[Any], Any, list[Any], Any], list[Any]]


def _multiplier(context: Any, builder: Any, bf16: bool, x_rows: list[Any]) -> _Multiply:
    """One step of the depth: `multiply(totals, x step, panels' starts, w step) -> totals`, rows outermost."""
    scalar, vector = (I32, LANES_I32) if bf16 else (x_rows[0].type.pointee, LANES_F32)
    x_rows = [builder.bitcast(row, scalar.as_pointer()) for row in x_rows]

    def multiply(totals: list[Any], x_step: Any, starts: list[Any], w_step: Any) -> list[Any]:
        at = builder.mul(w_step, i64(2 * LANES if bf16 else LANES))
        weights = [load(builder, builder.gep(start, [at]), vector) for start in starts]
        sums = iter(totals)
        out = []
        for row in x_rows:
            value = builder.load(builder.gep(row, [x_step]))
            value.align = 2
            lanes = splat(builder, value)
            out += [multiply_add(context, builder, next(sums), lanes, weight) for weight in weights]
        return out

    return multiply


def _rows(context: Any, builder: Any, signature: Any, args: Any, index: int, count: int) -> list[Any]:
    """Where each row starts, of the array that is argument `index`, followed by its offset and its stride."""
    first = pointer(context, builder, signature, args, index, args[index + 1])
    return [builder.gep(first, [builder.mul(args[index + 2], i64(r))]) for r in range(count)]


def _targets(context: Any, builder: Any, signature: Any, args: Any, index: int, rows: int, panels: int) -> list[Any]:
    starts = _rows(context, builder, signature, args, index, rows)
    return [builder.gep(start, [i64(p * LANES)]) for start in starts for p in range(panels)]


def _in_block(builder: Any, first: Any, entries: Any, entry: Any, block: Any) -> Any:
    number = builder.load(builder.gep(entries, [entry]))
    if number.type != I64:
        number = builder.sext(number, I64)
    return builder.gep(first, [builder.mul(number, block)])


def _store_all(builder: Any, totals: list[Any], targets: list[Any]) -> None:
    for total, target in zip(totals, targets, strict=True):
        store(builder, total, target)
