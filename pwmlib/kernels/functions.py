"""LayerNorm with Mish or SimNorm in one pass over memory, forward and backward, on a CPU.

On a CPU these element-wise layers cost more than the matrix products of a small model: torch runs LayerNorm, Mish and their
backward as a dozen passes over memory with a slow exponential. Here each is one Numba kernel per direction (compiled once, cached
on disk), with the single-exponential form of Mish: tanh(softplus(a)) = q / (q + 2), q = e^a (e^a + 2). Errors against a float64
computation are those of torch's own float32 kernels (tests/model/test_nets.py). x may be bfloat16: it is read and written as such and
computed in float32. Everything else (GPUs, float64) goes through torch.

x: shape [..., n]; weight, bias: shape [members, n] with the rows of x in `members` equal consecutive parts.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import layers
from .arithmetic import f32

__all__ = ["norm_mish", "norm_simnorm"]

EPS = 1e-5
"""LayerNorm's epsilon, torch's default."""


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
        (layers.mish_norm if mish_first else layers.norm_mish)(*_arrays(rows, w, b, moments, y), f32(EPS))
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
        (layers.mish_norm_backward if ctx.mish_first else layers.norm_mish_backward)(*_arrays(g, rows, w, b, moments, gx, gw, gb))
        return gx.view(grad.shape), gw if gw.numel() else None, gb if gb.numel() else None, None


class _NormSimNorm(_Layer):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, group: int) -> tuple[Tensor, Tensor]:
        rows, w, b, moments, y = _prepare(x, weight, bias)
        layers.norm_simnorm(*_arrays(rows, w, b, moments, y), f32(EPS), group)
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
        layers.norm_simnorm_backward(*_arrays(g, rows, results, w, moments, gx, gw, gb), ctx.group)
        return gx.view(grad.shape), gw if gw.numel() else None, gb if gb.numel() else None, None


def norm_mish(x: Tensor, weight: Tensor, bias: Tensor, *, mish_first: bool = False) -> Tensor:
    """Compute mish(LayerNorm(x)), or LayerNorm(mish(x)) with mish_first, of float32 or bfloat16 on the CPU; shapes as above."""
    return _NormMish.apply(x, weight, bias, mish_first)[0]


def norm_simnorm(x: Tensor, weight: Tensor, bias: Tensor, *, group: int = 8) -> Tensor:
    """Compute SimNorm(LayerNorm(x)) with groups of `group` consecutive entries, of float32 or bfloat16 on the CPU."""
    if x.shape[-1] % group:
        raise ValueError(f"norm_simnorm: the last dimension must be a multiple of group={group}, got shape {tuple(x.shape)}")
    return _NormSimNorm.apply(x, weight, bias, group)[0]
