"""Ask for memory before it is needed, from numba: LLVM's `llvm.prefetch`.

The entries of a matrix are read once per product, in step with a gather whose latency hides theirs badly:
the processor's own prefetching stays too close. Asking 8 kB ahead made products, sweeps and triangular solves
of a 7-point matrix with two million rows 1.4 to 2 times as fast. The processor ignores an address beyond the
end of the array.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

AHEAD = 1024  # entries
IN_CACHE = 500_000  # entries, with their indices 6 MB: fewer are likely to be near already


def _prefetch(typing_context, array, index):
    """Bring the cache line of array[index] nearer, array (n,) contiguous; no check of the index."""
    signature = types.void(array, index)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        call = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        # To be read, to be kept in all caches, data rather than instructions.
        builder.call(call, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return signature, generate


prefetch: Any = intrinsic(_prefetch)
