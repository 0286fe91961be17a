"""Layers of the paper: SimNorm (Eq. 4), Linear-LayerNorm-Mish blocks, and an ensemble of MLPs in one batched product.

Mish and SimNorm are written so that they are quick on a CPU; both equal their textbook forms to float rounding (tests/test_nets.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["mish", "relu", "silu"]
NormOrder = Literal["before_activation", "after_activation", "none"]

__all__ = ["Activation", "MLPEnsemble", "NormOrder", "NormedLinear", "SimNorm", "mish", "mlp", "simnorm"]


class _Mish(torch.autograd.Function):
    """Mish through a single exponential: with q = (1 + e^x)^2, tanh(softplus(x)) = (q - 1) / (q + 1)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        # q - 1 = e(e + 2) and q + 1 = e(e + 2) + 2, so no cancellation for very negative x.
        e = x.clamp(max=20.0).exp_()
        gate = (e + 2.0).mul_(e)
        gate.div_(gate + 2.0)
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        x, gate = ctx.saved_tensors
        # d/dx [x tanh(sp(x))] = gate + x sigmoid(x) (1 - gate^2)
        slope = gate.square().neg_().add_(1.0).mul_(torch.sigmoid(x)).mul_(x).add_(gate)
        return slope.mul_(grad)


def mish(x: Tensor) -> Tensor:
    """Mish, x tanh(softplus(x)) (Misra 2019); any shape. Twice as quick as `F.mish` on a CPU, the same to float rounding.

    Double backward and devices other than the CPU use `F.mish`, which is one fused kernel there.
    """
    if x.device.type != "cpu" or x.dtype == torch.float64 or not x.is_floating_point():
        return F.mish(x)
    return _Mish.apply(x)


ACTIVATIONS = {"mish": mish, "relu": F.relu, "silu": F.silu}


def simnorm(x: Tensor, group_size: int = 8) -> Tensor:
    """Simplicial normalisation: softmax over consecutive groups of entries (Eq. 4, with the groups not overlapping).

    x: any float tensor, shape [..., n] with n divisible by group_size. Returns the same shape; each group sums to 1.

    Softmax over a contiguous axis of 8 is slow on a CPU; with the group axis in front of a long contiguous one it vectorises.
    """
    n = x.shape[-1]
    if n % group_size:
        raise ValueError(f"simnorm: the last dimension must be a multiple of group_size={group_size}, got shape {tuple(x.shape)}")
    if x.device.type != "cpu":
        return x.reshape(*x.shape[:-1], n // group_size, group_size).softmax(-1).reshape(x.shape)
    groups = x.reshape(-1, n // group_size, group_size).transpose(1, 2).contiguous()
    return groups.softmax(1).transpose(1, 2).reshape(x.shape)


class SimNorm(nn.Module):
    """`simnorm` as a layer (Eq. 4; Table 1 has groups of 8)."""

    def __init__(self, group_size: int = 8):
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        return simnorm(x, self.group_size)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}"


class NormedLinear(nn.Module):
    """Linear, LayerNorm and activation, in the order that `norm` names.

    x: shape [..., in_features]. Returns shape [..., out_features].
    `activation` is a name of `ACTIVATIONS`, an `nn.Module` (such as SimNorm), or None.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: Activation | nn.Module | None = "mish",
        norm: NormOrder = "before_activation",
        spectral_norm: bool = False,
    ):
        super().__init__()
        linear = nn.Linear(in_features, out_features)
        self.weight, self.bias = linear.weight, linear.bias
        if spectral_norm:
            nn.utils.parametrizations.spectral_norm(self, "weight")
        self.norm = norm
        self.ln = nn.LayerNorm(out_features) if norm != "none" else None
        self.activation = activation if isinstance(activation, nn.Module) else None
        self._function = ACTIVATIONS[activation] if isinstance(activation, str) else self.activation

    def finish(self, x: Tensor) -> Tensor:
        """What follows the linear map: LayerNorm and activation."""
        if self.norm == "before_activation":
            x = self.ln(x)
        if self._function is not None:
            x = self._function(x)
        return self.ln(x) if self.norm == "after_activation" else x

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(F.linear(x, self.weight, self.bias))


def mlp(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    activation: Activation = "mish",
    norm: NormOrder = "before_activation",
    output: nn.Module | None = None,
    spectral_norm: bool = False,
) -> nn.Sequential:
    """A multilayer perceptron of `NormedLinear` blocks.

    The last layer is plain linear, or Linear-LayerNorm-`output` when an output module such as SimNorm is given
    (encoder and dynamics; the LayerNorm is left out when `norm` is "none").
    """
    sizes = [in_features, *hidden]
    blocks: list[nn.Module] = [
        NormedLinear(a, b, activation=activation, norm=norm, spectral_norm=spectral_norm)
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    last_norm: NormOrder = "none" if output is None or norm == "none" else "before_activation"
    blocks.append(NormedLinear(sizes[-1], out_features, activation=output, norm=last_norm, spectral_norm=spectral_norm))
    return nn.Sequential(*blocks)


class MLPEnsemble(nn.Module):
    """`members` MLPs of the same shape evaluated in batched matrix products; no Python loop over members.

    dtype "bfloat16" runs the matrix products in bfloat16; parameters, LayerNorm and activations stay in the input's dtype.
    x: shape [..., in_features], shared by all members. Returns shape [members, ..., out_features].
    Weights start orthogonal with gain sqrt(2) and zero bias, the output layer too (as in the released critics; the paper is silent).
    """

    def __init__(
        self,
        members: int,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        activation: Activation = "mish",
        norm: NormOrder = "before_activation",
        dtype: Literal["float32", "bfloat16"] = "float32",
    ):
        super().__init__()
        self.members, self.in_features, self.norm = members, in_features, norm
        self.dtype = getattr(torch, dtype)
        self._function = ACTIVATIONS[activation]
        sizes = [in_features, *hidden, out_features]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.ln_weights, self.ln_biases = nn.ParameterList(), nn.ParameterList()
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            weight = torch.empty(members, b, a)
            for member in weight:
                nn.init.orthogonal_(member, gain=math.sqrt(2))
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, b)))
            if i < len(hidden) and norm != "none":
                self.ln_weights.append(nn.Parameter(torch.ones(members, 1, b)))
                self.ln_biases.append(nn.Parameter(torch.zeros(members, 1, b)))

    def _layer_norm(self, i: int, x: Tensor) -> Tensor:
        return torch.addcmul(self.ln_biases[i], F.layer_norm(x, x.shape[-1:]), self.ln_weights[i])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"MLPEnsemble: expected {self.in_features} input features, got shape {tuple(x.shape)}")
        lead = x.shape[:-1]
        h = x.reshape(-1, self.in_features)
        # The first layer shares its input, so it is one product over all members' rows.
        w0, cast = self.weights[0], self.dtype
        h = F.linear(h.to(cast), w0.reshape(-1, self.in_features).to(cast), self.biases[0].reshape(-1).to(cast)).to(x.dtype)
        h = h.view(-1, self.members, w0.shape[1]).transpose(0, 1)
        last = len(self.weights) - 1
        for i in range(last + 1):
            if i:
                h = torch.baddbmm(self.biases[i].to(cast), h.to(cast), self.weights[i].transpose(1, 2).to(cast)).to(x.dtype)
            if i == last:
                break
            if self.norm == "before_activation":
                h = self._layer_norm(i, h)
            h = self._function(h)
            if self.norm == "after_activation":
                h = self._layer_norm(i, h)
        return h.reshape(self.members, *lead, -1)
