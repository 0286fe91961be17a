"""Per-sample gradients in the policy's parameters, for any policy module: a batch of vector-Jacobian products over all samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

__all__ = ["LogProbability", "PolicyGradients", "flat_parameters", "parameter_gradients"]


@runtime_checkable
class GaussianPolicy(Protocol):
    """A likelihood ratio needs a policy's mean and deviation before squashing; `pwmlib.optimizer.actor_critic.Actor` has them."""

    mean: Callable[[Tensor], Tensor]
    std: Tensor


class LogProbability(nn.Module):
    """Computes log N(u; mu(s), std) of a Gaussian policy before its squashing, as a module of the policy's parameters.

    A squashing such as tanh changes the density by a factor that does not depend on the parameters once u is given.
    """

    def __init__(self, policy: nn.Module):
        super().__init__()
        if not isinstance(policy, GaussianPolicy):
            raise ValueError(f"a likelihood-ratio estimator needs a policy with mean(state) and std, {type(policy).__name__} has not both")
        self.policy = policy

    def forward(self, state: Tensor, u: Tensor) -> Tensor:
        """Return the log density, [..., 1], of u [..., action_dim] in states [..., state_dim]."""
        std = self.policy.std
        return (-0.5 * ((u - self.policy.mean(state)) / std).square() - std.log()).sum(-1, keepdim=True)


@dataclass(frozen=True)
class PolicyGradients:
    """N per-sample estimates of the policy gradient at several horizons, computed when they are asked for.

    gradients(k) has shape [N, P] in the order of `policy.parameters()`; holding all horizons at once can be large.
    """

    name: str
    horizons: list[int]
    values: Tensor
    """J^H of each sample, [K, N]."""
    module: nn.Module
    states: Tensor
    inputs: Tensor
    cotangents: Tensor
    """[K, T, N, outputs of the module]."""

    def gradients(self, k: int) -> Tensor:
        """Compute the per-sample gradients at horizons[k], [N, P], float64."""
        steps = self.horizons[k]
        seeds = self.cotangents[k : k + 1, :steps]
        return parameter_gradients(self.module, self.states[:steps], self.inputs[:steps], seeds)[0]

    def at(self, horizon: int) -> Tensor:
        """Compute the per-sample gradients at a horizon, [N, P]."""
        if horizon not in self.horizons:
            raise ValueError(f"{self.name}: horizon {horizon} was not asked for; there are {self.horizons}")
        return self.gradients(self.horizons.index(horizon))

    def all(self) -> Tensor:
        """Compute the per-sample gradients of all horizons, [K, N, P]."""
        return parameter_gradients(self.module, self.states[: self.horizons[-1]], self.inputs[: self.horizons[-1]], self.cotangents)


def flat_parameters(module: nn.Module) -> Tensor:
    """Join all parameters in one vector [P]."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def parameter_gradients(module: nn.Module, states: Tensor, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """Sum cotangents times d module(state, input) / d parameters over time, per sample and horizon: [K, N, P], float64.

    states: [T, N, ...], inputs: [T, N, ...], cotangents: [K, T, N, outputs]. Computed in float64.
    """
    parameters = {name: p.detach().double() for name, p in module.named_parameters()}
    buffers = {name: b.detach().double() if b.is_floating_point() else b for name, b in module.named_buffers()}

    def sample(state: Tensor, given: Tensor, seeds: Tensor) -> Tensor:
        pull = vjp(lambda p: functional_call(module, (p, buffers), (state, given)), parameters)[1]
        (found,) = vmap(pull)(seeds)
        return torch.cat([found[name].flatten(1) for name in parameters], -1)

    run = vmap(sample, in_dims=(1, 1, 2), out_dims=1)
    return run(states.double(), inputs.double(), cotangents.double())


def check_samples(samples: Sequence | Tensor, where: str) -> None:
    """Raise ValueError for fewer than two samples, which have no variance."""
    if len(samples) < 2:
        raise ValueError(f"{where}: need at least 2 samples, got {len(samples)}")
