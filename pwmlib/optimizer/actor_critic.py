"""Actor and critics (Sec. 3.3, Table 1)."""

from typing import Literal

import torch
from torch import Tensor, nn

from pwmlib.errors import one_of
from pwmlib.model.layers import Activation, MLPEnsemble, NormOrder, RunningMoments, mlp

__all__ = ["MIN_LOG_STD", "Actor", "Critics"]

MIN_LOG_STD = -1.427
"""Floor of the log standard deviation, exp(-1.427) = 0.24 (Table 1: minimum policy std 0.24)."""


class Actor(nn.Module):
    """A Gaussian policy with a state-independent standard deviation, squashed by tanh.

    Called with (state [..., state_dim], noise [..., action_dim] or None); returns tanh(mu(state) + std noise), in [-1, 1].
    noise None gives the deterministic policy tanh(mu), which is what is evaluated.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        *,
        hidden: tuple[int, ...] = (400, 200, 100),
        activation: Activation = "mish",
        norm: NormOrder = "before_activation",
        log_std_init: float = -1.0,
        min_log_std: float = MIN_LOG_STD,
        standardise: bool = False,
    ):
        """Build the network; with `standardise` it begins with the running moments of what it reads (`normalise`)."""
        super().__init__()
        self.state_dim, self.action_dim, self.min_log_std = state_dim, action_dim, min_log_std
        self.mean = mlp(state_dim, hidden, action_dim, activation=activation, norm=norm)
        self.log_std = nn.Parameter(torch.full((action_dim,), log_std_init))
        self.moments = RunningMoments(state_dim) if standardise else None
        if self.moments is not None:
            self.mean = nn.Sequential(self.moments, *self.mean)

    def normalise(self, state: Tensor) -> Tensor:
        """Give the state as the networks see it: standardised by its moments so far, or as it is."""
        return state if self.moments is None else self.moments(state)

    def clamp_log_std_(self) -> None:
        """Move log_std up to its floor, in place. Run after each optimiser step, so that the parameter itself cannot sink."""
        with torch.no_grad():
            self.log_std.clamp_(min=self.min_log_std)

    @property
    def std(self) -> Tensor:
        """The standard deviation before tanh, [action_dim]."""
        return self.log_std.clamp(min=self.min_log_std).exp()

    def forward(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return actions [..., action_dim] in states [..., state_dim]."""
        mean = self.mean(state)
        return torch.tanh(mean if noise is None else mean + self.std * noise)


class Critics(nn.Module):
    """Several state-value functions (Table 1: 3 of sizes 400, 200) in one batched product."""

    def __init__(
        self,
        state_dim: int,
        *,
        members: int = 3,
        hidden: tuple[int, ...] = (400, 200),
        activation: Activation = "mish",
        norm: NormOrder = "before_activation",
        reduction: Literal["mean", "min"] = "mean",
        precision: Literal["float32", "bfloat16"] = "float32",
    ):
        """Build the networks; `precision` is that of the matrix products, the rest stays float32."""
        super().__init__()
        self.reduction, self.precision = one_of(reduction, ("mean", "min"), "Critics: reduction"), precision
        self.net = MLPEnsemble(members, state_dim, hidden, 1, activation=activation, norm=norm)

    def forward(self, state: Tensor) -> Tensor:
        """Return the values [members, ...] of states [..., state_dim]."""
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.net(state).squeeze(-1).to(state.dtype)

    def value(self, state: Tensor) -> Tensor:
        """Return one value per state, shape [...]: the mean over members, or their minimum (released code)."""
        values = self(state)
        return values.mean(0) if self.reduction == "mean" else values.min(0).values
