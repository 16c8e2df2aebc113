"""Sixteen lanes of float32: the pieces of LLVM vector code that kernels are made of.

Numba vectorises a loop only where LLVM proves it safe, and keeps no array in registers. So the inner loops say their
vector code outright; LLVM fits sixteen lanes to the machine (one AVX-512 register, or two of AVX2).

Elements are float32, or bfloat16 held as uint16. Of bfloat16 a lane holds a *pair*, two neighbours of the reduced
dimension, which is what a dot instruction reads; without the instruction a pair is two shifts away from float32.
"""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pagoda_engine.kernels.cpu.target import has

_BF16_DOT: Final = "avx512bf16"  # the feature

LANES: Final = 16
_LINE: Final = 64  # bytes of a cache line
I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
LANES_F32, LANES_I32, LANES_I16 = (ir.VectorType(kind, LANES) for kind in (F32, I32, I16))
ZERO: Final = ir.Constant(LANES_F32, [0.0] * LANES)


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_PAIRS: Final = ir.VectorType(_BFloat(), 2 * LANES)
_LANES_BF16: Final = ir.VectorType(_BFloat(), LANES)


def i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def pointer(context: Any, builder: Any, signature: Any, args: Any, index: int, offset: Any) -> Any:
    """The address of element `offset` of the array that is argument `index`."""
    array = context.make_array(signature.args[index])(context, builder, args[index])
    return builder.gep(array.data, [offset])


def is_bf16(array: types.Array) -> bool:
    return array.dtype == types.uint16


def load(builder: Any, address: Any, vector: ir.VectorType) -> Any:
    value = builder.load(builder.bitcast(address, vector.as_pointer()))
    value.align = 2
    return value


def store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.bitcast(address, value.type.as_pointer())).align = 2


def splat(builder: Any, scalar: Any) -> Any:
    vector = ir.VectorType(scalar.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(LANES_I32, [0] * LANES))


def multiply_add(context: Any, builder: Any, total: Any, a: Any, b: Any) -> Any:
    """`total + a * b`; where `a` and `b` are pairs of bfloat16, both products are added."""
    if a.type == LANES_F32:
        return call(builder, f"llvm.fma.v{LANES}f32", LANES_F32, [a, b, total])
    if has(context, _BF16_DOT):
        pairs = [builder.bitcast(value, _PAIRS) for value in (a, b)]
        return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", LANES_F32, [total, *pairs])
    for x, y in zip(_halves(builder, a), _halves(builder, b), strict=True):
        total = multiply_add(context, builder, total, x, y)
    return total


def loop(builder: Any, count: Any, starts: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """`for i in range(count)` over values kept in registers: `body(i, values) -> values`. `count` is at least 1."""
    before, block, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(block)
    builder.position_at_end(block)
    index = builder.phi(I64)
    index.add_incoming(i64(0), before)
    carried = [builder.phi(start.type) for start in starts]
    for phi, start in zip(carried, starts, strict=True):
        phi.add_incoming(start, before)
    values = body(index, carried)
    following = builder.add(index, i64(1))
    index.add_incoming(following, builder.block)
    for phi, value in zip(carried, values, strict=True):
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), block, after)
    builder.position_at_end(after)
    return values


def to_bf16(context: Any, builder: Any, value: Any) -> Any:
    if has(context, _BF16_DOT):
        return builder.bitcast(builder.fptrunc(value, _LANES_BF16), LANES_I16)
    bits = builder.bitcast(value, LANES_I32)

    def every(number: int) -> ir.Constant:
        return ir.Constant(LANES_I32, [number] * LANES)

    odd = builder.and_(builder.lshr(bits, every(16)), every(1))
    rounded = builder.add(builder.add(bits, every(0x7FFF)), odd)
    # Rounding could carry a NaN over into a number.
    rounded = builder.select(builder.fcmp_unordered("uno", value, value), every(0x7FC00000), rounded)
    return builder.trunc(builder.lshr(rounded, every(16)), LANES_I16)


def call(builder: Any, name: str, result: Any, args: list[Any], fastmath: Sequence[str] = ()) -> Any:
    """Call one of LLVM's own functions."""
    kind = ir.FunctionType(result, [value.type for value in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args, fastmath=fastmath)


@intrinsic
def store_lanes(typing_context, target, at, source, source_at):  # noqa: ANN001, ANN201, ARG001
    """Sixteen floats of `source` (float32) to elements of `target`, rounded to nearest even."""

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        value = load(builder, pointer(context, builder, signature, args, 2, args[3]), LANES_F32)
        address = pointer(context, builder, signature, args, 0, args[1])
        store(builder, to_bf16(context, builder, value) if is_bf16(target) else value, address)
        return context.get_dummy_value()

    return types.void(target, at, source, source_at), codegen


@intrinsic
def largest(typing_context, values, at, count):  # noqa: ANN001, ANN201, ARG001
    """(index, value) of the largest of `count` floats from `at`, the first of equals; (-1, NaN) if one is NaN.

    `count` is at least 1. What follows the values up to a multiple of sixteen is read, and ignored.
    """
    signature = types.Tuple((types.int64, types.float32))(values, at, count)

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        data = pointer(context, builder, signature, args, 0, args[1])
        count = args[2]
        lane_numbers = ir.Constant(LANES_I32, list(range(LANES)))

        def body(i: Any, carried: list[Any]) -> list[Any]:
            best, found, strange = carried
            at = builder.mul(i, i64(LANES))
            value = load(builder, builder.gep(data, [at]), LANES_F32)
            here = builder.add(splat(builder, builder.trunc(at, I32)), lane_numbers)
            counts = builder.icmp_signed("<", here, splat(builder, builder.trunc(count, I32)))
            better = builder.and_(counts, builder.fcmp_ordered(">", value, best))
            nan = builder.and_(counts, builder.fcmp_unordered("uno", value, value))
            return [
                builder.select(better, value, best),
                builder.select(better, here, found),
                builder.or_(strange, builder.zext(nan, LANES_I32)),
            ]

        least = ir.Constant(LANES_F32, [float("-inf")] * LANES)
        none = ir.Constant(LANES_I32, [0] * LANES)
        steps = builder.sdiv(builder.add(count, i64(LANES - 1)), i64(LANES))
        best, found, strange = loop(builder, steps, [least, lane_numbers, none], body)
        value, index, bad = (builder.extract_element(v, ir.Constant(I32, 0)) for v in (best, found, strange))
        for lane in range(1, LANES):
            v, f, s = (builder.extract_element(x, ir.Constant(I32, lane)) for x in (best, found, strange))
            earlier = builder.and_(builder.fcmp_ordered("==", v, value), builder.icmp_signed("<", f, index))
            better = builder.or_(builder.fcmp_ordered(">", v, value), earlier)
            value, index = builder.select(better, v, value), builder.select(better, f, index)
            bad = builder.or_(bad, s)
        is_bad = builder.icmp_signed("!=", bad, ir.Constant(I32, 0))
        index = builder.select(is_bad, i64(-1), builder.sext(index, I64))
        value = builder.select(is_bad, ir.Constant(F32, float("nan")), value)
        return context.make_tuple(builder, signature.return_type, [index, value])

    return signature, codegen


@intrinsic
def get(typing_context, array, at):  # noqa: ANN001, ANN201, ARG001
    """Element `at` as float32."""

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        value = builder.load(pointer(context, builder, signature, args, 0, args[1]))
        if not is_bf16(array):
            return value
        return builder.bitcast(builder.shl(builder.zext(value, I32), ir.Constant(I32, 16)), F32)

    return types.float32(array, at), codegen


@intrinsic
def put(typing_context, array, at, value):  # noqa: ANN001, ANN201, ARG001
    """Write the float32 `value` to element `at`, rounded to nearest even."""

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        value = args[2]
        if is_bf16(array):
            value = builder.extract_element(to_bf16(context, builder, splat(builder, value)), ir.Constant(I32, 0))
        builder.store(value, pointer(context, builder, signature, args, 0, args[1]))
        return context.get_dummy_value()

    return types.void(array, at, types.float32), codegen


@intrinsic
def fetch_early(typing_context, array, at, count):  # noqa: ANN001, ANN201, ARG001
    """Ask for `count` elements from `at`, so that they are in the second cache when they are read."""
    signature = types.void(array, at, count)

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        bytes_ = builder.bitcast(pointer(context, builder, signature, args, 0, args[1]), ir.IntType(8).as_pointer())
        size = context.get_abi_sizeof(context.get_data_type(array.dtype))
        lines = builder.sdiv(builder.add(args[2], i64(_LINE // size - 1)), i64(_LINE // size))
        read, second_cache, data = (ir.Constant(I32, number) for number in (0, 2, 1))
        kind = ir.FunctionType(ir.VoidType(), [bytes_.type, I32, I32, I32])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")

        def body(line: Any, _: list[Any]) -> list[Any]:
            address = builder.gep(bytes_, [builder.mul(line, i64(_LINE))])
            builder.call(prefetch, [address, read, second_cache, data])
            return []

        loop(builder, lines, [], body)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def has_many_registers(typing_context):  # noqa: ANN001, ANN201, ARG001
    """Whether there are 32 registers of sixteen lanes, and not sixteen registers of eight."""

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202, ARG001
        return context.get_constant(types.boolean, has(context, "avx512f"))

    return types.boolean(), codegen


@intrinsic
def float_of_bits(typing_context, bits):  # noqa: ANN001, ANN201, ARG001
    """The float32 whose representation is an int32."""

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202, ARG001
        return builder.bitcast(args[0], F32)

    return types.float32(types.int32), codegen


def _halves(builder: Any, pairs: Any) -> tuple[Any, Any]:
    """Pairs of bfloat16 as two vectors of float32: the first and the second of each pair."""
    shift, mask = ir.Constant(LANES_I32, [16] * LANES), ir.Constant(LANES_I32, [-65536] * LANES)
    first = builder.bitcast(builder.shl(pairs, shift), LANES_F32)
    return first, builder.bitcast(builder.and_(pairs, mask), LANES_F32)
