"""Layers: SimNorm (Eq. 4), Linear-LayerNorm-Mish blocks, an ensemble of MLPs in one batched product, and running standardisation."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["mish", "relu", "silu"]
NormOrder = Literal["before_activation", "after_activation", "none"]

__all__ = [
    "Activation", "MLPEnsemble", "NormOrder", "NormedLinear", "RunningMoments", "SimNorm", "mlp", "norm_and_activation", "simnorm",
    "training_mode",
]  # fmt: skip

ACTIVATIONS = {"mish": F.mish, "relu": F.relu, "silu": F.silu}


@contextmanager
def training_mode(module: nn.Module, on: bool) -> Iterator[None]:
    """Put a module into training or evaluation mode for a while.

    In training mode a spectral norm takes a power iteration at every use of its weight, so that no two uses see the same one.
    """
    before = module.training
    module.train(on)
    try:
        yield
    finally:
        module.train(before)


def simnorm(x: Tensor, group_size: int = 8) -> Tensor:
    """Take the softmax of consecutive groups of entries, simplicial normalisation (Eq. 4, with the groups not overlapping).

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
    """A layer that applies `simnorm` (Eq. 4; Table 1 has groups of 8)."""

    def __init__(self, group_size: int = 8):
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to x [..., n]."""
        return simnorm(x, self.group_size)


def norm_and_activation(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, activation: str | nn.Module | None, norm: NormOrder
) -> Tensor:
    """Apply LayerNorm and activation to x [..., n] in the order of `norm`, in one kernel where there is one (on a CPU, not in float64).

    weight, bias: LayerNorm's, [n], or [members, 1, n] for x [members, rows, n]; without them there is only the activation.
    activation: a name of `ACTIVATIONS`, a module, or None. The result has the dtype of x; bfloat16 is computed in float32.
    """
    function = ACTIVATIONS[activation] if isinstance(activation, str) else activation
    if weight is None or bias is None:
        return x if function is None else function(x)
    fusible = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and weight.dtype == torch.float32
    if fusible and (activation == "mish" or (isinstance(activation, SimNorm) and norm == "before_activation")):
        from pwmlib.kernels import functions as fused  # Numba takes half a second to import

        w, b = weight.reshape(-1, weight.shape[-1]), bias.reshape(-1, bias.shape[-1])
        if isinstance(activation, SimNorm):
            return fused.norm_simnorm(x, w, b, group=activation.group_size)
        return fused.norm_mish(x, w, b, mish_first=norm == "after_activation")
    if x.dtype == torch.bfloat16:
        return norm_and_activation(x.float(), weight, bias, activation, norm).to(x.dtype)
    if norm == "after_activation" and function is not None:
        x = function(x)
    x = F.layer_norm(x, x.shape[-1:], weight, bias) if weight.dim() == 1 else torch.addcmul(bias, F.layer_norm(x, x.shape[-1:]), weight)
    return function(x) if norm == "before_activation" and function is not None else x


class NormedLinear(nn.Linear):
    """A block of Linear, LayerNorm and activation, in the order that `norm` names.

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
        super().__init__(in_features, out_features)
        if spectral_norm:
            nn.utils.parametrizations.spectral_norm(self, "weight")
        self.norm: NormOrder = norm
        self.ln = nn.LayerNorm(out_features) if norm != "none" else None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in_features] to [..., out_features]."""
        weight, bias = (None, None) if self.ln is None else (self.ln.weight, self.ln.bias)
        return norm_and_activation(F.linear(x, self.weight, self.bias), weight, bias, self.activation, self.norm)


def linear_layers(net: nn.Module) -> list[NormedLinear]:
    """List the `NormedLinear` blocks of a network, in the order of their use."""
    return [module for module in net.modules() if isinstance(module, NormedLinear)]


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
    """Build a multilayer perceptron of `NormedLinear` blocks.

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
    """Several MLPs of the same shape in batched matrix products, without a Python loop over `members`.

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
    ):
        super().__init__()
        self.members, self.in_features = members, in_features
        self.norm: NormOrder = norm
        self.activation: Activation = activation
        sizes = [in_features, *hidden, out_features]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.ln_weights, self.ln_biases = nn.ParameterList(), nn.ParameterList()
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            # [in, out], so that neither the product nor the weight's gradient is transposed.
            weight = torch.empty(members, a, b)
            for member in weight:
                nn.init.orthogonal_(member, gain=math.sqrt(2))
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, b)))
            if i < len(hidden) and norm != "none":
                self.ln_weights.append(nn.Parameter(torch.ones(members, 1, b)))
                self.ln_biases.append(nn.Parameter(torch.zeros(members, 1, b)))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Evaluate all; `keep` has factors [members, rows, hidden[0]] on the first layer's output before it is normalised (dropout)."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"MLPEnsemble: expected {self.in_features} input features, got shape {tuple(x.shape)}")
        lead = x.shape[:-1]
        h = x.reshape(-1, self.in_features).expand(self.members, -1, -1)
        last = len(self.weights) - 1
        for i in range(last + 1):
            h = torch.baddbmm(self.biases[i], h, self.weights[i])
            if i == last:
                break
            if i == 0 and keep is not None:
                h = h * keep
            weight, bias = (None, None) if self.norm == "none" else (self.ln_weights[i], self.ln_biases[i])
            h = norm_and_activation(h, weight, bias, self.activation, self.norm)
        return h.reshape(self.members, *lead, h.shape[-1])


class RunningMoments(nn.Module):
    """Mean and variance of all batches seen so far (Chan et al. 1979); as a layer it standardises its input."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(shape, dtype=dtype))
        self.variance = nn.Buffer(torch.ones(shape, dtype=dtype))
        self.count = nn.Buffer(torch.tensor(1e-4, dtype=dtype))  # what it begins with has almost no weight

    @torch.no_grad()
    def add(self, batch: Tensor) -> None:
        """Fold in a batch, shape [..., *shape]."""
        values = batch.to(self.mean.dtype).reshape(-1, *self.mean.shape)
        n, delta = len(values), values.mean(0) - self.mean
        total = self.count + n
        squares = self.variance * self.count + values.var(0, unbiased=False) * n + delta.square() * self.count * n / total
        self.variance.copy_(squares / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """The standard deviation, sqrt(variance + 1e-5)."""
        return (self.variance + 1e-5).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Standardise x [..., *shape]."""
        return (x - self.mean) / self.std
