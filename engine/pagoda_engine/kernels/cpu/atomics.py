"""What threads need to share work: atomic words, a pause while they wait, and a way to let others run."""

from __future__ import annotations

# mypy: disable-error-code="import-untyped, misc, no-any-return, no-untyped-call, no-untyped-def, return-value"
# Numba and llvmlite are untyped, and types inside a kernel are Numba's.
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pagoda_engine.kernels.cpu.lanes import pointer

# ruff: noqa: ANN001, ANN201, ANN202, ARG001 - Numba fixes the signatures of intrinsics


@intrinsic
def fetch_add(typing_context, words, at, value):
    """Add to a word of an int64 array and return what it held before, as one act."""

    def codegen(context, builder, signature, args):
        address = pointer(context, builder, signature, args, 0, args[1])
        return builder.atomic_rmw("add", address, args[2], "acq_rel")

    return types.int64(words, types.int64, types.int64), codegen


@intrinsic
def read(typing_context, words, at):
    """A word, with all that was written before it was published."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(pointer(context, builder, signature, args, 0, args[1]), "acquire", 8)

    return types.int64(words, types.int64), codegen


@intrinsic
def publish(typing_context, words, at, value):
    """Write a word after all that was written before."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[2], pointer(context, builder, signature, args, 0, args[1]), "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), codegen


@intrinsic
def pause(typing_context):
    """Tell the core that this thread spins."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(typing_context):
    """Let another thread have this core (POSIX sched_yield)."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen
