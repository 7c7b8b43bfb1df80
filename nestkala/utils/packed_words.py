"""Packed words: packed codes as machine words, for fast comparisons."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled, intrinsic

Words = NDArray[np.unsignedinteger]


def ordered_words(packed: NDArray[np.uint8]) -> Words:
    """Packed codes (N, bytes) as big-endian words (N, W), which sort in the order of the codes.

    A single word of 8, 16, 32 or 64 bits if that is enough, otherwise several of 64 bits; padding is at the end.
    """
    num_bytes = packed.shape[1]
    size = next((size for size in (1, 2, 4, 8) if num_bytes <= size), 8)
    padded = np.zeros((len(packed), num_bytes + -num_bytes % size), np.uint8)
    padded[:, :num_bytes] = packed
    return padded.view(f">u{size}").astype(f"u{size}")


def packed_bytes(words: Words, num_bytes: int) -> NDArray[np.uint8]:
    """The packed codes (N, num_bytes) from which `ordered_words` made the words."""
    as_bytes = words.astype(words.dtype.newbyteorder(">")).view(np.uint8)
    return np.ascontiguousarray(as_bytes[:, :num_bytes])


@intrinsic
def _ctpop(_: Any, x: Any) -> Any:  # noqa: ARG001 - numba passes it by name
    """The processor's popcount instruction, which LLVM vectorizes in loops; numba does not expose it."""
    from numba import types

    def generated(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), generated


@compiled
def popcount(x: np.uint64) -> np.int64:
    """Number of bits set in a uint64."""
    return np.int64(_ctpop(np.uint64(x)))


@intrinsic
def prefetch(_: Any, array: Any, place: Any) -> Any:  # noqa: ARG001 - as above
    """prefetch(array, place): fetch an element of a contiguous array into the cache, for compiled functions.

    Otherwise the processor waits for every element that is far away in memory, because the next step depends on it.
    """
    from llvmlite import ir
    from numba import types

    def generated(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
        builder.call(function, [pointer, number(0), number(3), number(1)])  # read access, high locality, data cache
        return context.get_dummy_value()

    return types.void(array, types.uint64), generated
