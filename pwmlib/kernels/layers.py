"""One kernel a direction for LayerNorm with Mish (either first) and for LayerNorm with SimNorm.

Arrays: x, y, g (the gradient of y) and gx: [rows, n]; weight, bias, gw, gb: [members, n], the rows in as many equal parts; moments: mean
and 1 / std of each row. Those of the gradients that nobody asks for are empty.
"""

from __future__ import annotations

import numpy as np

from .arithmetic import exp, f32, inline, jit, load, store

__all__ = ["mish_norm", "mish_norm_backward", "norm_mish", "norm_mish_backward", "norm_simnorm", "norm_simnorm_backward"]


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
def _mish(x, y):
    for j in range(x.size):
        e = exp(x[j])
        q = e * (e + f32(2.0))
        y[j] = x[j] * (q / (q + f32(2.0)))


@inline
def _mish_and_slope(x, y, slope):
    """Mish and its derivative q / (q + 2) + 4 x e (1 + e) / (q + 2)^2 from one exponential."""
    for j in range(x.size):
        e = exp(x[j])
        q = e * (e + f32(2.0))
        d = f32(1.0) / (q + f32(2.0))
        y[j] = x[j] * q * d
        slope[j] = q * d + f32(4.0) * x[j] * e * (f32(1.0) + e) * d * d


@jit
def norm_mish(x, weight, bias, moments, y, eps):
    """Compute y = mish(LayerNorm(x)), and the moments of x."""
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, a = np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        w, b = weight[i // rows], bias[i // rows]
        load(x[i], xi)
        mean, inverse = _moments(xi, eps)
        moments[i, 0], moments[i, 1] = mean, inverse
        for j in range(n):
            a[j] = (xi[j] - mean) * inverse * w[j] + b[j]
        _mish(a, xi)
        store(xi, y[i])


@jit
def norm_mish_backward(g, x, weight, bias, moments, gx, gw, gb):
    """Compute the gradients of x, weight and bias of `norm_mish`."""
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, gi, a = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    unused, slope = np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        m = i // rows
        w, b, mean, inverse = weight[m], bias[m], moments[i, 0], moments[i, 1]
        load(x[i], xi)
        load(g[i], gi)
        for j in range(n):
            a[j] = (xi[j] - mean) * inverse * w[j] + b[j]
        _mish_and_slope(a, unused, slope)
        for j in range(n):
            gi[j] *= slope[j]
        _affine_backward(gi, xi, mean, inverse, w, gw[m], gb[m])
        store(gi, gx[i])


@jit
def mish_norm(x, weight, bias, moments, y, eps):
    """Compute y = LayerNorm(mish(x)), and the moments of mish(x)."""
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, u = np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        w, b = weight[i // rows], bias[i // rows]
        load(x[i], xi)
        _mish(xi, u)
        mean, inverse = _moments(u, eps)
        moments[i, 0], moments[i, 1] = mean, inverse
        for j in range(n):
            xi[j] = (u[j] - mean) * inverse * w[j] + b[j]
        store(xi, y[i])


@jit
def mish_norm_backward(g, x, weight, bias, moments, gx, gw, gb):
    """Compute the gradients of x, weight and bias of `mish_norm`."""
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, gi, u, slope = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        m = i // rows
        load(x[i], xi)
        load(g[i], gi)
        _mish_and_slope(xi, u, slope)
        _affine_backward(gi, u, moments[i, 0], moments[i, 1], weight[m], gw[m], gb[m])
        for j in range(n):
            gi[j] *= slope[j]
        store(gi, gx[i])


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
        y[j] = exp(y[j])
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
def norm_simnorm(x, weight, bias, moments, y, eps, group):
    """Compute y = SimNorm(LayerNorm(x)) over groups of `group` entries, and the moments of x."""
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi = np.empty(n, np.float32)
    for i in range(x.shape[0]):
        w, b = weight[i // rows], bias[i // rows]
        load(x[i], xi)
        mean, inverse = _moments(xi, eps)
        moments[i, 0], moments[i, 1] = mean, inverse
        for j in range(n):
            xi[j] = (xi[j] - mean) * inverse * w[j] + b[j]
        if group == 8:  # a constant, so that the compiler unrolls the loops
            _softmax_groups(xi, 8)
        else:
            _softmax_groups(xi, group)
        store(xi, y[i])


@jit
def norm_simnorm_backward(g, x, y, weight, moments, gx, gw, gb, group):
    """Compute the gradients of x, weight and bias of `norm_simnorm`, whose result was y."""
    rows, n = x.shape[0] // weight.shape[0], x.shape[1]
    xi, yi, gi = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(x.shape[0]):
        m = i // rows
        load(x[i], xi)
        load(y[i], yi)
        load(g[i], gi)
        if group == 8:
            _softmax_groups_backward(gi, yi, 8)
        else:
            _softmax_groups_backward(gi, yi, group)
        _affine_backward(gi, xi, moments[i, 0], moments[i, 1], weight[m], gw[m], gb[m])
        store(gi, gx[i])
