"""One kernel a direction for LayerNorm with Mish (either first) or with SimNorm.

Arrays: x, y, g (the gradient of y) and gx: [rows, n], float32 or the bits of bfloat16 numbers; weight, bias, gw, gb: [members, n], the rows
in as many equal parts; moments: mean and 1 / std of each row. Those of the gradients that nobody asks for are empty.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

__all__ = ["f32", "norm_layer", "norm_layer_backward"]

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


@inline
def _exp(x):
    """Compute e^x for x clamped to [-80, 20]; NaN stays NaN through the polynomial."""
    x = f32(20.0) if x > f32(20.0) else x
    x = f32(-80.0) if x < f32(-80.0) else x
    k = np.floor(x * _LOG2E + f32(0.5))
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    two_to_the_k = np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(f32)  # the exponent's bits
    return (p * r * r + r + f32(1.0)) * two_to_the_k


def _load(source, row):
    """Copy a float32 row, or the bits of a bfloat16 one, into a float32 row."""
    raise NotImplementedError("compiled only")


def _store(row, target):
    """Copy a float32 row into one, or into the bits of a bfloat16 one, rounded to nearest even."""
    raise NotImplementedError("compiled only")


@overload(_load, inline="always")
def _load_overload(source, row):
    def copy(source, row):
        for j in range(row.size):
            row[j] = source[j]

    def widen(source, row):
        bits = row.view(np.uint32)
        for j in range(row.size):
            bits[j] = np.uint32(source[j]) << np.uint32(16)

    return widen if source.dtype == types.uint16 else copy


@overload(_store, inline="always")
def _store_overload(row, target):
    def copy(row, target):
        for j in range(row.size):
            target[j] = row[j]

    def narrow(row, target):
        bits = row.view(np.uint32)
        for j in range(row.size):
            odd = (bits[j] >> np.uint32(16)) & np.uint32(1)
            target[j] = np.uint16((bits[j] + odd + np.uint32(0x7FFF)) >> np.uint32(16))

    return narrow if target.dtype == types.uint16 else copy


@inline
def _moments(x, eps):
    """Mean and 1 / std of a row."""
    n = x.size
    total = f32(0.0)
    for j in range(n):
        total += x[j]
    mean = total / f32(n)
    square = f32(0.0)
    for j in range(n):
        d = x[j] - mean
        square += d * d
    return mean, f32(1.0) / np.sqrt(square / f32(n) + eps)


@inline
def _affine(x, mean, inverse, w, b):
    """Turn x into LayerNorm's output, in place."""
    for j in range(x.size):
        x[j] = (x[j] - mean) * inverse * w[j] + b[j]


@inline
def _affine_backward(g, x, mean, inverse, w, gw, gb):
    """Turn g, the gradient of LayerNorm's output, into that of its input x, in place.

    Those of weight and bias are added to gw and gb, which are empty when nobody asks for them.
    """
    n = g.size
    first, second = f32(0.0), f32(0.0)
    if gw.size:
        for j in range(n):
            gb[j] += g[j]
            gw[j] += g[j] * (x[j] - mean) * inverse
    for j in range(n):
        h = (x[j] - mean) * inverse
        gh = g[j] * w[j]
        first += gh
        second += gh * h
        g[j] = gh
    first, second = first / f32(n), second / f32(n)
    for j in range(n):
        g[j] = inverse * (g[j] - first - (x[j] - mean) * inverse * second)


@inline
def _mish(x):
    """Turn x into Mish of it, in place."""
    for j in range(x.size):
        e = _exp(x[j])
        q = e * (e + f32(2.0))
        x[j] = x[j] * (q / (q + f32(2.0)))


@inline
def _mish_and_slope(x, slope):
    """Turn x into Mish of it, in place, and give the derivative q / (q + 2) + 4 x e (1 + e) / (q + 2)^2 from the same exponential."""
    for j in range(x.size):
        e = _exp(x[j])
        q = e * (e + f32(2.0))
        d = f32(1.0) / (q + f32(2.0))
        slope[j] = q * d + f32(4.0) * x[j] * e * (f32(1.0) + e) * d * d
        x[j] = x[j] * q * d


@inline
def _softmax_groups(y, group):
    """Softmax of consecutive groups, in place."""
    for start in range(0, y.size, group):
        top = y[start]
        for j in range(start, start + group):
            top = y[j] if y[j] > top else top
        for j in range(start, start + group):
            y[j] -= top
    for j in range(y.size):
        y[j] = _exp(y[j])
    for start in range(0, y.size, group):
        total = f32(0.0)
        for j in range(start, start + group):
            total += y[j]
        scale = f32(1.0) / total
        for j in range(start, start + group):
            y[j] *= scale


@inline
def _softmax_groups_backward(g, y, group):
    """Turn g, the gradient of the softmax y of consecutive groups, into that of its input, in place."""
    for start in range(0, g.size, group):
        dot = f32(0.0)
        for j in range(start, start + group):
            dot += g[j] * y[j]
        for j in range(start, start + group):
            g[j] = y[j] * (g[j] - dot)


@jit
def norm_layer(x, weight, bias, moments, y, eps, mish_first, group):
    """Compute y and the moments of what LayerNorm reads.

    y = SimNorm(LayerNorm(x)) over groups of `group` entries; with group 0 mish(LayerNorm(x)), or LayerNorm(mish(x)) with mish_first.
    """
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi = np.empty(n, np.float32)
    for i in range(x.shape[0]):
        _load(x[i], xi)
        if mish_first:
            _mish(xi)
        mean, inverse = _moments(xi, eps)
        moments[i, 0], moments[i, 1] = mean, inverse
        _affine(xi, mean, inverse, weight[i // rows], bias[i // rows])
        if group == 8:  # a constant, so that the compiler unrolls the loops
            _softmax_groups(xi, 8)
        elif group:
            _softmax_groups(xi, group)
        elif not mish_first:
            _mish(xi)
        _store(xi, y[i])


@jit
def norm_layer_backward(g, x, y, weight, bias, moments, gx, gw, gb, mish_first, group):
    """Compute the gradients of x, weight and bias of `norm_layer`, whose result was y."""
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, gi, a, slope = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        m = i // rows
        w, b, mean, inverse = weight[m], bias[m], moments[i, 0], moments[i, 1]
        _load(x[i], xi)
        _load(g[i], gi)
        if group:
            _load(y[i], a)
            if group == 8:
                _softmax_groups_backward(gi, a, 8)
            else:
                _softmax_groups_backward(gi, a, group)
        elif mish_first:
            _mish_and_slope(xi, slope)
        else:
            a[:] = xi
            _affine(a, mean, inverse, w, b)
            _mish_and_slope(a, slope)
            for j in range(n):
                gi[j] *= slope[j]
        _affine_backward(gi, xi, mean, inverse, w, gw[m], gb[m])
        if mish_first:
            for j in range(n):
                gi[j] *= slope[j]
        _store(gi, gx[i])
