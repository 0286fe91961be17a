"""LayerNorm with Mish or SimNorm in one pass over memory, forward and backward, on a CPU.

On a CPU these element-wise layers cost more than the matrix products of a small model: torch runs LayerNorm, Mish and their
backward as a dozen passes over memory with a slow exponential. Here each is one Numba kernel per direction (compiled once, cached
on disk), with the single-exponential form of Mish: tanh(softplus(a)) = q / (q + 2), q = e^a (e^a + 2). Errors against a float64
computation are those of torch's own float32 kernels (tests/test_nets.py). x may be bfloat16: it is read and written as such and
computed in float32. Everything else (GPUs, float64) goes through torch.

x: shape [..., n]; weight, bias: shape [members, n] with the rows of x in `members` equal consecutive parts.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["norm_mish", "norm_simnorm"]

EPS = 1e-5
"""LayerNorm's epsilon, torch's default."""

f32 = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = f32(1.4426950408889634), f32(0.693359375), f32(-2.12194440e-4)
# exp(r) = 1 + r + r^2 p(r) on [-ln 2 / 2, ln 2 / 2]; minimax coefficients of p, highest first.
_P0, _P1, _P2 = f32(1.9875691500e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)
_P3, _P4, _P5 = f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)

# Finite arguments only (no nnan/ninf): a NaN must stay a NaN, so that training can stop on it.
_jit = numba.njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", cache=True, nogil=True)
# Helpers become part of each kernel before it is compiled. Compiled and cached on their own, they would be linked or inlined
# depending on what was in the cache, and the last bits of results with them.
_inline = numba.njit(inline="always")


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


@_inline
def _exp(x):
    """e^x for x clamped to [-80, 20]; NaN stays NaN through the polynomial."""
    x = f32(20.0) if x > f32(20.0) else x
    x = f32(-80.0) if x < f32(-80.0) else x
    k = _floor(x * _LOG2E + f32(0.5))
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    return (p * r * r + r + f32(1.0)) * _power_of_two(k)


@_inline
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


@_inline
def _affine_backward(g, x, mean, inverse, w, gw, gb):
    """Turn g, the gradient of LayerNorm's output, into that of its input x, in place; add those of weight and bias to gw and gb
    (which are empty when nobody asks for them)."""
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


@_inline
def _mish(x, y):
    for j in range(x.size):
        e = _exp(x[j])
        q = e * (e + f32(2.0))
        y[j] = x[j] * (q / (q + f32(2.0)))


@_inline
def _mish_and_slope(x, y, slope):
    """Mish and its derivative q / (q + 2) + 4 x e (1 + e) / (q + 2)^2 from one exponential."""
    for j in range(x.size):
        e = _exp(x[j])
        q = e * (e + f32(2.0))
        d = f32(1.0) / (q + f32(2.0))
        y[j] = x[j] * q * d
        slope[j] = q * d + f32(4.0) * x[j] * e * (f32(1.0) + e) * d * d


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


def _load(source, row):
    """Copy a float32 row, or the bits of a bfloat16 one, into a float32 row."""
    raise NotImplementedError("compiled only")


def _store(row, target):
    """The other way."""
    raise NotImplementedError("compiled only")


@overload(_load, inline="always")
def _load_overload(source, row):
    if source.dtype == types.uint16:

        def load(source, row):
            for j in range(row.size):
                row[j] = _widen(source[j])
    else:

        def load(source, row):
            for j in range(row.size):
                row[j] = source[j]

    return load


@overload(_store, inline="always")
def _store_overload(row, target):
    if target.dtype == types.uint16:

        def store(row, target):
            for j in range(row.size):
                target[j] = _narrow(row[j])
    else:

        def store(row, target):
            for j in range(row.size):
                target[j] = row[j]

    return store


@_jit
def _norm_mish(x, weight, bias, moments, y, eps):
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, a = np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        w, b = weight[i // rows], bias[i // rows]
        _load(x[i], xi)
        mean, inverse = _moments(xi, eps)
        moments[i, 0], moments[i, 1] = mean, inverse
        for j in range(n):
            a[j] = (xi[j] - mean) * inverse * w[j] + b[j]
        _mish(a, xi)
        _store(xi, y[i])


@_jit
def _norm_mish_backward(g, x, weight, bias, moments, gx, gw, gb):
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, gi, a = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    unused, slope = np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        m = i // rows
        w, b, mean, inverse = weight[m], bias[m], moments[i, 0], moments[i, 1]
        _load(x[i], xi)
        _load(g[i], gi)
        for j in range(n):
            a[j] = (xi[j] - mean) * inverse * w[j] + b[j]
        _mish_and_slope(a, unused, slope)
        for j in range(n):
            gi[j] *= slope[j]
        _affine_backward(gi, xi, mean, inverse, w, gw[m], gb[m])
        _store(gi, gx[i])


@_jit
def _mish_norm(x, weight, bias, moments, y, eps):
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, u = np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        w, b = weight[i // rows], bias[i // rows]
        _load(x[i], xi)
        _mish(xi, u)
        mean, inverse = _moments(u, eps)
        moments[i, 0], moments[i, 1] = mean, inverse
        for j in range(n):
            xi[j] = (u[j] - mean) * inverse * w[j] + b[j]
        _store(xi, y[i])


@_jit
def _mish_norm_backward(g, x, weight, bias, moments, gx, gw, gb):
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, gi, u, slope = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        m = i // rows
        _load(x[i], xi)
        _load(g[i], gi)
        _mish_and_slope(xi, u, slope)
        _affine_backward(gi, u, moments[i, 0], moments[i, 1], weight[m], gw[m], gb[m])
        for j in range(n):
            gi[j] *= slope[j]
        _store(gi, gx[i])


@_inline
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


@_inline
def _softmax_eights(y):
    """`_softmax_groups` for groups of 8, whose loops the compiler can unroll."""
    for start in range(0, y.size, 8):
        top = y[start]
        for k in range(1, 8):
            top = y[start + k] if y[start + k] > top else top
        for k in range(8):
            y[start + k] -= top
    for j in range(y.size):
        y[j] = _exp(y[j])
    for start in range(0, y.size, 8):
        total = f32(0.0)
        for k in range(8):
            total += y[start + k]
        scale = f32(1.0) / total
        for k in range(8):
            y[start + k] *= scale


@_jit
def _norm_simnorm(x, weight, bias, moments, y, eps, group):
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi = np.empty(n, np.float32)
    for i in range(x.shape[0]):
        w, b = weight[i // rows], bias[i // rows]
        _load(x[i], xi)
        mean, inverse = _moments(xi, eps)
        moments[i, 0], moments[i, 1] = mean, inverse
        for j in range(n):
            xi[j] = (xi[j] - mean) * inverse * w[j] + b[j]
        if group == 8:
            _softmax_eights(xi)
        else:
            _softmax_groups(xi, group)
        _store(xi, y[i])


@_jit
def _norm_simnorm_backward(g, x, y, weight, moments, gx, gw, gb, group):
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, yi, gi = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        m = i // rows
        _load(x[i], xi)
        _load(y[i], yi)
        _load(g[i], gi)
        if group == 8:
            for start in range(0, n, 8):
                dot = f32(0.0)
                for k in range(8):
                    dot += gi[start + k] * yi[start + k]
                for k in range(8):
                    gi[start + k] = yi[start + k] * (gi[start + k] - dot)
        else:
            for start in range(0, n, group):
                dot = f32(0.0)
                for j in range(start, start + group):
                    dot += gi[j] * yi[j]
                for j in range(start, start + group):
                    gi[j] = yi[j] * (gi[j] - dot)
        _affine_backward(gi, xi, moments[i, 0], moments[i, 1], weight[m], gw[m], gb[m])
        _store(gi, gx[i])


def _prepare(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rows of x, weight and bias as contiguous arrays, and room for moments and result."""
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
    if weight.shape[-1] != x.shape[-1] or rows.shape[0] % weight.shape[0]:
        raise ValueError(f"fused layer: rows {tuple(rows.shape)} do not fit weights {tuple(weight.shape)}")
    return rows, weight.detach().contiguous(), bias.detach().contiguous(), torch.empty(len(rows), 2), torch.empty_like(rows)


def _gradients(ctx, rows: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the gradients of x, weight and bias; none for the latter two of layers where neither is asked for."""
    shape = w.shape if any(ctx.needs_input_grad[1:3]) else (len(w), 0)
    return torch.empty_like(rows), torch.zeros(shape), torch.zeros(shape)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """NumPy views; a bfloat16 tensor as its bits."""
    return [(t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for t in tensors]


class _Layer(torch.autograd.Function):
    """What both layers share: many modules at once (torch.func.vmap) are more members in one call."""

    @classmethod
    def vmap(cls, info, in_dims, x: Tensor, weight: Tensor, bias: Tensor, option: int):
        x, weight, bias = (
            t.unsqueeze(0).expand(info.batch_size, *t.shape) if at is None else t.movedim(at, 0)
            for t, at in zip((x, weight, bias), in_dims, strict=False)
        )
        y, moments = cls.apply(x, weight.flatten(0, 1), bias.flatten(0, 1), option)
        return (y, moments.view(info.batch_size, -1, 2)), (0, 0)


class _NormMish(_Layer):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, mish_first: int) -> tuple[Tensor, Tensor]:
        rows, w, b, moments, y = _prepare(x, weight, bias)
        (_mish_norm if mish_first else _norm_mish)(*_arrays(rows, w, b, moments, y), f32(EPS))
        return y.view(x.shape), moments

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, ctx.mish_first = inputs
        ctx.save_for_backward(x, weight, bias, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor):
        x, w, b, moments = ctx.saved_tensors
        rows, g = x.reshape(-1, x.shape[-1]).contiguous(), grad.reshape(-1, x.shape[-1]).contiguous()
        w, b = w.contiguous(), b.contiguous()
        gx, gw, gb = _gradients(ctx, rows, w)
        (_mish_norm_backward if ctx.mish_first else _norm_mish_backward)(*_arrays(g, rows, w, b, moments, gx, gw, gb))
        return gx.view(grad.shape), gw if gw.numel() else None, gb if gb.numel() else None, None


class _NormSimNorm(_Layer):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, group: int) -> tuple[Tensor, Tensor]:
        rows, w, b, moments, y = _prepare(x, weight, bias)
        _norm_simnorm(*_arrays(rows, w, b, moments, y), f32(EPS), group)
        return y.view(x.shape), moments

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.group = inputs
        ctx.save_for_backward(x, output[0], weight, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor):
        x, y, w, moments = ctx.saved_tensors
        rows, results, g = (t.reshape(-1, x.shape[-1]).contiguous() for t in (x, y, grad))
        w = w.contiguous()
        gx, gw, gb = _gradients(ctx, rows, w)
        _norm_simnorm_backward(*_arrays(g, rows, results, w, moments, gx, gw, gb), ctx.group)
        return gx.view(grad.shape), gw if gw.numel() else None, gb if gb.numel() else None, None


def norm_mish(x: Tensor, weight: Tensor, bias: Tensor, *, mish_first: bool = False) -> Tensor:
    """mish(LayerNorm(x)), or LayerNorm(mish(x)) with mish_first. float32 or bfloat16 on the CPU; shapes as in the module's."""
    return _NormMish.apply(x, weight, bias, mish_first)[0]


def norm_simnorm(x: Tensor, weight: Tensor, bias: Tensor, *, group: int = 8) -> Tensor:
    """SimNorm(LayerNorm(x)) with groups of `group` consecutive entries. float32 or bfloat16 on the CPU."""
    if x.shape[-1] % group:
        raise ValueError(f"norm_simnorm: the last dimension must be a multiple of group={group}, got shape {tuple(x.shape)}")
    return _NormSimNorm.apply(x, weight, bias, group)[0]
