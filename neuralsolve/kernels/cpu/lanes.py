"""Eight numbers at once in numba: values of the type `Lanes` are vectors of LLVM and live in registers.

Loops over eight neighbours are left to the compiler elsewhere; where such loops are short and many, its
tests whether arrays overlap take longer than the arithmetic. Here a load, a product or a sum of eight
numbers is one instruction. Compile with `ordered`: the reductions of arguments rely on the order of their
operations.

`exp_lanes` and `turn_lanes` err by a few units in the last place, of float32 and float64; not a number
stays so.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

from neuralsolve.kernels.cpu.threads import ordered

LANES = 8


class Lanes(types.Type):
    """Eight floats of one kind."""

    def __init__(self, number: types.Float):
        self.number = number
        super().__init__(name=f"Lanes({number})")


def _vector(number: types.Float, whole: bool = False) -> ir.VectorType:
    if whole:
        return ir.VectorType(ir.IntType(number.bitwidth), LANES)
    return ir.VectorType(ir.FloatType() if number.bitwidth == 32 else ir.DoubleType(), LANES)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _vector(fe_type.number))


def _spread(builder, value):
    """Return a vector of eight equal numbers."""
    empty = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, empty, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


def _place(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _vector(kind.dtype).as_pointer())


def _load(typing_context, array, index):
    """Return array[index : index + 8], array contiguous; no check of the index."""
    signature = Lanes(array.dtype)(array, types.intp)

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        got = builder.load(_place(context, builder, kind, *arguments))
        got.align = kind.dtype.bitwidth // 8
        return got

    return signature, generate


def _store(typing_context, value, array, index):
    """Set array[index : index + 8], array contiguous; no check of the index."""
    signature = types.void(value, array, types.intp)

    def generate(context, builder, signature, arguments):
        kind = signature.args[1]
        done = builder.store(arguments[0], _place(context, builder, kind, *arguments[1:]))
        done.align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    return signature, generate


def _arithmetic(name: str) -> Any:
    """Return an operation on two vectors, or on a vector and a number."""

    def operation(typing_context, a, b):
        number = a.number if isinstance(a, Lanes) else b.number

        def generate(context, builder, signature, arguments):
            both = []
            for kind, value in zip(signature.args, arguments, strict=True):
                if not isinstance(kind, Lanes):
                    value = _spread(builder, context.cast(builder, value, kind, number))
                both.append(value)
            return getattr(builder, name)(*both)

        return Lanes(number)(a, b), generate

    return intrinsic(operation)


def _offer(symbol: Any, operation: Any) -> None:
    def typed(a, b):
        if isinstance(a, Lanes) and isinstance(b, (Lanes, types.Float)):
            return lambda a, b: operation(a, b)
        if isinstance(b, Lanes) and isinstance(a, types.Float):
            return lambda a, b: operation(a, b)
        return None

    overload(symbol, inline="always")(typed)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _offer(_symbol, _arithmetic(_name))


def _where_less(typing_context, a, b, x, y):
    """Return x where a < b, else y (so too where one of them is not a number)."""
    number = a.number

    def generate(context, builder, signature, arguments):
        values = [
            value if isinstance(kind, Lanes) else _spread(builder, context.cast(builder, value, kind, number))
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        return builder.select(builder.fcmp_ordered("<", values[0], values[1]), values[2], values[3])

    return Lanes(number)(a, b, x, y), generate


def _nearest(typing_context, a):
    """Return the nearest whole numbers."""

    def generate(context, builder, signature, arguments):
        number = signature.args[0].number
        kind = ir.FunctionType(_vector(number), [_vector(number)])
        name = f"llvm.rint.v{LANES}f{number.bitwidth}"
        return builder.call(get_or_insert_function(builder.module, kind, name), arguments)

    return a(a), generate


def _power_of_two(typing_context, a):
    """Return 2^a of whole numbers a whose power is a normal number."""

    def generate(context, builder, signature, arguments):
        number = signature.args[0].number
        bits, bias = (23, 127) if number.bitwidth == 32 else (52, 1023)
        kind = _vector(number, whole=True)
        whole = builder.fptosi(arguments[0], kind)
        shifted = builder.add(whole, ir.Constant(kind, [bias] * LANES))
        return builder.bitcast(builder.shl(shifted, ir.Constant(kind, [bits] * LANES)), _vector(number))

    return a(a), generate


def _is_double(typing_context, a):
    """Return whether the numbers are float64: known when compiled."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(1), int(signature.args[0].number.bitwidth == 64))

    return types.boolean(a), generate


def _conversion(bits: int) -> Any:
    """Return an operation that makes float32 or float64 of the numbers."""
    target = types.float32 if bits == 32 else types.float64

    def operation(typing_context, a):
        def generate(context, builder, signature, arguments):
            number = signature.args[0].number
            if number == target:
                return arguments[0]
            change = builder.fptrunc if bits < number.bitwidth else builder.fpext
            return change(arguments[0], _vector(target))

        return Lanes(target)(a), generate

    return intrinsic(operation)


load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
where_less: Any = intrinsic(_where_less)
nearest: Any = intrinsic(_nearest)
power_of_two: Any = intrinsic(_power_of_two)
is_double: Any = intrinsic(_is_double)
narrow: Any = _conversion(32)
widen: Any = _conversion(64)

# ln 2 as a number with few bits, whose multiples are exact, and the rest
_LN2 = 0.693145751953125
_LN2_REST = 1.4286068203094172321e-6


@ordered
def exp_lanes(x):
    """Return e^x for x <= 0; where the result would be below the normal numbers, the least of about these."""
    lowest = -708.0 if is_double(x) else -87.0
    x = where_less(x, lowest, lowest, x)
    n = nearest(x * 1.4426950408889634)
    r = (x - n * _LN2) - n * _LN2_REST  # |r| <= ln(2) / 2
    p = r * (1 / 5040) + 1 / 720
    if is_double(x):
        p = ((r * (1 / 6227020800) + 1 / 479001600) * r + 1 / 39916800) * r + 1 / 3628800
        p = (((p * r + 1 / 362880) * r + 1 / 40320) * r + 1 / 5040) * r + 1 / 720
    p = (((p * r + 1 / 120) * r + 1 / 24) * r + 1 / 6) * r + 0.5
    return ((p * r) * r + r + 1.0) * power_of_two(n)


@ordered
def turn_lanes(u):
    """Return sin(pi u) and cos(pi u); the argument is reduced without error, however large it is."""
    n = nearest(u * 2.0)
    r = (u - n * 0.5) * 3.14159265358979323846  # |r| <= pi / 4
    q = r * r
    if is_double(u):
        s = (q * (1 / 355687428096000) - 1 / 1307674368000) * q + 1 / 6227020800
        s = ((s * q - 1 / 39916800) * q + 1 / 362880) * q - 1 / 5040
        c = (q * (1 / 20922789888000) - 1 / 87178291200) * q + 1 / 479001600
        c = ((c * q - 1 / 3628800) * q + 1 / 40320) * q - 1 / 720
    else:
        s = (q * (-1 / 39916800) + 1 / 362880) * q - 1 / 5040
        c = (q * (-1 / 3628800) + 1 / 40320) * q - 1 / 720
    s = r + r * q * ((s * q + 1 / 120) * q - 1 / 6)
    c = ((c * q + 1 / 24) * q - 0.5) * q + 1.0
    quarter = n - nearest(n * 0.25) * 4.0  # -2, -1, 0, 1, 2 quarter turns
    even = quarter * quarter - 1.0
    even = even * even
    sine, cosine = where_less(even, 0.5, c, s), where_less(even, 0.5, s, c)
    other = 0.0 - quarter
    sine = where_less(quarter, -0.5, 0.0 - sine, where_less(other, -1.5, 0.0 - sine, sine))
    cosine = where_less(quarter, -1.5, 0.0 - cosine, where_less(other, -0.5, 0.0 - cosine, cosine))
    return sine, cosine
