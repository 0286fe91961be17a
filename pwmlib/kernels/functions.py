"""LayerNorm with Mish or SimNorm in one pass over memory, forward and backward, on a CPU.

On a CPU these element-wise layers cost more than the matrix products of a small model: torch runs LayerNorm, Mish and their
backward as a dozen passes over memory with a slow exponential. Here each is one Numba kernel per direction (compiled once, cached
on disk), with the single-exponential form of Mish: tanh(softplus(a)) = q / (q + 2), q = e^a (e^a + 2). Errors against a float64
computation are those of torch's own float32 kernels (tests/model/test_nets.py). x may be bfloat16: it is read and written as such and
computed in float32. Everything else (GPUs, float64) goes through torch.

x: shape [..., n]; weight, bias: shape [members, n] with the rows of x in `members` equal consecutive parts.
"""

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import layers
from .layers import f32

__all__ = ["norm_mish", "norm_simnorm"]

EPS = 1e-5
"""LayerNorm's epsilon, torch's default."""


def _rows(x: Tensor) -> Tensor:
    return x.detach().reshape(-1, x.shape[-1]).contiguous()


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """NumPy views; a bfloat16 tensor as its bits."""
    return [(t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for t in tensors]


class _Layer(torch.autograd.Function):
    """Either layer: LayerNorm with Mish where `group` is 0, else with SimNorm over groups of so many entries."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, mish_first: bool, group: int) -> tuple[Tensor, Tensor]:
        rows, w, b = _rows(x), weight.detach().contiguous(), bias.detach().contiguous()
        if weight.shape[-1] != x.shape[-1] or rows.shape[0] % weight.shape[0]:
            raise ValueError(f"fused layer: rows {tuple(rows.shape)} do not fit weights {tuple(weight.shape)}")
        moments, y = torch.empty(len(rows), 2), torch.empty_like(rows)
        layers.norm_layer(*[*_arrays(rows, w, b, moments, y), f32(EPS), mish_first, group])
        return y.view(x.shape), moments

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, ctx.mish_first, ctx.group = inputs
        y, moments = output
        ctx.save_for_backward(x, weight, bias, y if ctx.group else None, moments)
        ctx.mark_non_differentiable(moments)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor):
        x, weight, bias, y, moments = ctx.saved_tensors
        w, rows, g = weight.contiguous(), _rows(x), _rows(grad)
        shape = w.shape if any(ctx.needs_input_grad[1:3]) else (len(w), 0)  # no work for gradients that nobody asks for
        gx, gw, gb = torch.empty_like(rows), torch.zeros(shape), torch.zeros(shape)
        given = _arrays(g, rows, rows if y is None else _rows(y), w, bias.contiguous(), moments, gx, gw, gb)
        layers.norm_layer_backward(*[*given, ctx.mish_first, ctx.group])
        return gx.view(grad.shape), gw if gw.numel() else None, gb if gb.numel() else None, None, None

    @classmethod
    def vmap(cls, info, in_dims, x: Tensor, weight: Tensor, bias: Tensor, mish_first: bool, group: int):
        """Many modules at once are more members in one call."""
        x, weight, bias = (
            t.unsqueeze(0).expand(info.batch_size, *t.shape) if at is None else t.movedim(at, 0)
            for t, at in zip((x, weight, bias), in_dims, strict=False)
        )
        y, moments = cls.apply(x, weight.flatten(0, 1), bias.flatten(0, 1), mish_first, group)
        return (y, moments.view(info.batch_size, -1, 2)), (0, 0)


def norm_mish(x: Tensor, weight: Tensor, bias: Tensor, *, mish_first: bool = False) -> Tensor:
    """Compute mish(LayerNorm(x)), or LayerNorm(mish(x)) with mish_first, of float32 or bfloat16 on the CPU; shapes as above."""
    return _Layer.apply(x, weight, bias, mish_first, 0)[0]


def norm_simnorm(x: Tensor, weight: Tensor, bias: Tensor, *, group: int = 8) -> Tensor:
    """Compute SimNorm(LayerNorm(x)) with groups of `group` consecutive entries, of float32 or bfloat16 on the CPU."""
    if x.shape[-1] % group:
        raise ValueError(f"norm_simnorm: the last dimension must be a multiple of group={group}, got shape {tuple(x.shape)}")
    return _Layer.apply(x, weight, bias, False, group)[0]
