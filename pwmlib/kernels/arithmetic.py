"""What the CPU kernels compute with: a quick exponential, and rows of float32 or bfloat16 numbers.

Numba keeps compiled kernels on disk and looks only at the file that a kernel is in: after a change here, touch layers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.extending import overload

__all__ = ["exp", "f32", "inline", "jit", "load", "store"]

f32 = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = f32(1.4426950408889634), f32(0.693359375), f32(-2.12194440e-4)
# exp(r) = 1 + r + r^2 p(r) on [-ln 2 / 2, ln 2 / 2]; minimax coefficients of p, highest first.
_P0, _P1, _P2 = f32(1.9875691500e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)
_P3, _P4, _P5 = f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)

# Numba has no types; what it compiles takes arrays of several kinds.
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
# Finite arguments only (no nnan/ninf): a NaN must stay a NaN, so that training can stop on it.
jit: Decorator = numba.njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", cache=True, nogil=True)
# Helpers become part of each kernel before it is compiled. Compiled and cached on their own, they would be linked or inlined
# depending on what was in the cache, and the last bits of results with them.
inline: Decorator = numba.njit(inline="always")


def intrinsic(code: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as Numba does; what it makes is called without the typing context."""
    return extending.intrinsic(code)


@intrinsic
def _floor(typing_context, x):
    def code(context, builder, signature, arguments):
        function = builder.module.declare_intrinsic("llvm.floor", [ir.FloatType()])
        return builder.call(function, arguments)

    return types.float32(types.float32), code


@intrinsic
def _power_of_two(typing_context, k):
    """2^k for a whole float k in [-126, 127], by writing the exponent bits."""

    def code(context, builder, signature, arguments):
        word = ir.IntType(32)
        exponent = builder.add(builder.fptosi(arguments[0], word), ir.Constant(word, 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.float32), code


@inline
def exp(x):
    """Compute e^x for x clamped to [-80, 20]; NaN stays NaN through the polynomial."""
    x = f32(20.0) if x > f32(20.0) else x
    x = f32(-80.0) if x < f32(-80.0) else x
    k = _floor(x * _LOG2E + f32(0.5))
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    return (p * r * r + r + f32(1.0)) * _power_of_two(k)


@intrinsic
def _widen(typing_context, bits):
    """bfloat16 bits as a float32."""

    def code(context, builder, signature, arguments):
        word = ir.IntType(32)
        shifted = builder.shl(builder.zext(arguments[0], word), ir.Constant(word, 16))
        return builder.bitcast(shifted, ir.FloatType())

    return types.float32(types.uint16), code


@intrinsic
def _narrow(typing_context, x):
    """float32 as bfloat16 bits, rounded to nearest even (NaN keeps a set mantissa: its upper bits are never all zero here)."""

    def code(context, builder, signature, arguments):
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, ir.Constant(word, 16)), ir.IntType(16))

    return types.uint16(types.float32), code


def load(source, row):
    """Copy a float32 row, or the bits of a bfloat16 one, into a float32 row."""
    raise NotImplementedError("compiled only")


def store(row, target):
    """Copy a float32 row into one, or into the bits of a bfloat16 one."""
    raise NotImplementedError("compiled only")


@overload(load, inline="always")
def _load_overload(source, row):
    if source.dtype == types.uint16:

        def implementation(source, row):
            for j in range(row.size):
                row[j] = _widen(source[j])
    else:

        def implementation(source, row):
            for j in range(row.size):
                row[j] = source[j]

    return implementation


@overload(store, inline="always")
def _store_overload(row, target):
    if target.dtype == types.uint16:

        def implementation(row, target):
            for j in range(row.size):
                target[j] = _narrow(row[j])
    else:

        def implementation(row, target):
            for j in range(row.size):
                target[j] = row[j]

    return implementation
