"""First-order, zeroth-order, smoothed and mixed estimates of the gradient of J = E sum_t gamma^t r_t, all per sample.

    first_order          sum_t (d a_t / d theta)^T  d J / d a_t                      pathwise, Eq. 3; needs differentiable dynamics
    zeroth_order         sum_t grad log pi(a_t | s_t) (R_t - b_t)                    likelihood ratio, reward-to-go R_t, baseline b
    parameter_smoothing  (J(theta + sigma e) - J(theta - sigma e)) e / (2 sigma)     Gaussian smoothing of theta; no need of a density
    mix                  alpha first_order + (1 - alpha) zeroth_order                Suh et al. 2022

On the same start states and noise all of them see the same trajectories (smoothing has trajectories of its own).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from pwmlib.errors import one_of
from pwmlib.model.dynamics import Dynamics

from .trajectories import action_adjoints, check_horizons, open_loop, returns_at, sample_trajectories

__all__ = [
    "BASELINES", "PolicyGradients", "confidence_alpha", "first_order", "first_order_along", "flat_parameters", "mix",
    "parameter_gradients", "parameter_smoothing", "variance_optimal_alpha", "zeroth_order",
]  # fmt: skip


class LogProbability(nn.Module):
    """Computes log N(u; mu(s), std) of a Gaussian policy before its squashing, as a module of the policy's parameters.

    A squashing such as tanh changes the density by a factor that does not depend on the parameters once u is given.
    """

    def __init__(self, policy: nn.Module):
        super().__init__()
        if not (hasattr(policy, "mean") and hasattr(policy, "std")):  # as `pwmlib.optimizer.actor_critic.Actor` has
            raise ValueError(f"a likelihood-ratio estimator needs a policy with mean(state) and std, {type(policy).__name__} has not both")
        self.policy: Any = policy

    def forward(self, state: Tensor, u: Tensor) -> Tensor:
        """Return the log density, [..., 1], of u [..., action_dim] in states [..., state_dim]."""
        std = self.policy.std
        return (-0.5 * ((u - self.policy.mean(state)) / std).square() - std.log()).sum(-1, keepdim=True)


@dataclass(frozen=True)
class PolicyGradients:
    """N per-sample estimates of the policy gradient at several horizons, computed when they are asked for: all at once can be large."""

    name: str
    horizons: list[int]
    values: Tensor
    """J^H of each sample, [K, N]."""
    module: nn.Module
    states: Tensor
    inputs: Tensor
    cotangents: Tensor
    """[K, T, N, outputs of the module]."""

    def at(self, horizon: int) -> Tensor:
        """Compute the per-sample gradients at a horizon, [N, P] in the order of the policy's parameters, float64."""
        if horizon not in self.horizons:
            raise ValueError(f"{self.name}: horizon {horizon} was not asked for; there are {self.horizons}")
        seeds = self.cotangents[[self.horizons.index(horizon)], :horizon]
        return parameter_gradients(self.module, self.states[:horizon], self.inputs[:horizon], seeds)[0]


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


BASELINES = ("none", "mean", "reward_to_go")


def first_order(
    dynamics: Dynamics, policy: nn.Module, start: Tensor, noise: Tensor, *, gamma: float = 1.0,
    horizons: Sequence[int] | None = None, detach_policy_input: bool = False,
) -> PolicyGradients:  # fmt: skip
    """Compute the pathwise gradient (Eq. 3) of every sample and horizon.

    start: [N, state_dim]; noise: [T, N, action_dim]. detach_policy_input: the policy sees sg(s_t), as the released code does.
    Raises ValueError for dynamics without gradients and for wrong shapes.
    """
    path = sample_trajectories(dynamics, policy, start, noise)
    chosen = check_horizons(horizons, len(noise))
    feedback = None if detach_policy_input else policy
    adjoints = action_adjoints(dynamics, path, gamma=gamma, horizons=chosen, policy=feedback)
    return PolicyGradients("first_order", chosen, returns_at(path, chosen, gamma), policy, path.states[:-1], noise, adjoints)


def first_order_along(
    dynamics: Dynamics, start: Tensor, actions: Tensor, *, policy: nn.Module, seen: Tensor, noise: Tensor, gamma: float = 1.0,
    horizons: Sequence[int] | None = None,
) -> PolicyGradients:  # fmt: skip
    """Compute pathwise gradients through `dynamics` along given actions, those that the policy took elsewhere.

    actions: policy(seen, noise), [T, N, action_dim]; seen: what the policy saw, [T, N, ...]. So several worlds can be asked about the
    same actions; the policy does not react to what happens in this one.
    """
    if seen.shape[:2] != actions.shape[:2] or noise.shape != actions.shape or actions.shape[1] != len(start):
        raise ValueError(
            f"first_order_along: seen {tuple(seen.shape)}, noise {tuple(noise.shape)}, actions {tuple(actions.shape)} and start "
            f"{tuple(start.shape)} must agree in steps and samples"
        )
    chosen = check_horizons(horizons, len(actions))
    path = open_loop(dynamics, start, actions)
    adjoints = action_adjoints(dynamics, path, gamma=gamma, horizons=chosen)
    return PolicyGradients("first_order", chosen, returns_at(path, chosen, gamma), policy, seen, noise, adjoints)


def zeroth_order(
    dynamics: Dynamics, policy: nn.Module, start: Tensor, noise: Tensor, *, gamma: float = 1.0,
    horizons: Sequence[int] | None = None, baseline: str | Callable[[Tensor], Tensor] = "reward_to_go",
) -> PolicyGradients:  # fmt: skip
    """Compute the likelihood-ratio gradient of every sample and horizon; the dynamics need not be differentiable.

    baseline: "none" uses the whole return J^H for every action; "mean" the same minus the other samples' mean J^H; "reward_to_go" the
    rewards from t on, minus their mean over the other samples; or a function state -> value, subtracted from the rewards from t on
    (discounted like them). The leave-one-out means keep every choice unbiased.
    """
    if not callable(baseline):
        one_of(baseline, BASELINES, "zeroth_order: baseline, if it is no function of the state,")
    density = LogProbability(policy)
    path = sample_trajectories(dynamics, policy, start, noise)
    if baseline != "none":
        check_samples(start, "zeroth_order with a baseline from the other samples")
    chosen = check_horizons(horizons, len(noise))
    discount = gamma ** torch.arange(len(noise), dtype=path.rewards.dtype, device=path.rewards.device)
    total = (path.rewards * discount[:, None]).cumsum(0)
    at_horizon = total[torch.tensor(chosen, device=total.device) - 1]
    weights = at_horizon[:, None].expand(-1, len(noise), -1)
    if baseline == "reward_to_go" or callable(baseline):
        before = torch.cat([torch.zeros_like(total[:1]), total[:-1]])
        weights = weights - before
    if baseline in ("mean", "reward_to_go"):
        others = (weights.sum(-1, keepdim=True) - weights) / (weights.shape[-1] - 1)  # the mean of the other samples
        weights = weights - others
    elif callable(baseline):
        with torch.no_grad():
            weights = weights - discount[:, None] * baseline(path.states[:-1])
    inside = torch.arange(len(noise), device=total.device)[None, :, None] < torch.tensor(chosen, device=total.device)[:, None, None]
    weights = torch.where(inside, weights * path.alive[:-1], 0.0)
    with torch.no_grad():
        u = density.policy.mean(path.states[:-1]) + density.policy.std * noise
    return PolicyGradients("zeroth_order", chosen, at_horizon, density, path.states[:-1], u, weights[..., None])


def parameter_smoothing(
    dynamics: Dynamics, policy: nn.Module, start: Tensor, noise: Tensor, *, sigma: float, directions: Tensor, gamma: float = 1.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute J [N] and the gradients [N, P] of the Gaussian-smoothed objective E_e J(theta + sigma e), per direction.

    directions: e, standard normal, [N, P]. An estimate is (J(theta + sigma e) - J(theta - sigma e)) e / (2 sigma), from two rollouts. All
    samples' policies run as one batch.
    """
    parameters = list(policy.named_parameters())
    size = sum(p.numel() for _, p in parameters)
    if directions.shape != (len(start), size):
        raise ValueError(f"parameter_smoothing: directions has shape {tuple(directions.shape)}, expected {(len(start), size)} = [N, P]")
    if not sigma > 0:
        raise ValueError(f"parameter_smoothing: sigma must be positive, got {sigma}")
    check_samples(start, "parameter_smoothing")
    theta = flat_parameters(policy)

    def returns(vectors: Tensor) -> Tensor:
        def act(vector: Tensor, state: Tensor, step_noise: Tensor) -> Tensor:
            pieces = vector.split([p.numel() for _, p in parameters])
            values = {name: piece.view(p.shape) for (name, p), piece in zip(parameters, pieces, strict=True)}
            return functional_call(policy, values, (state, step_noise))

        batched = vmap(act)
        wide = vectors.double()
        chosen = lambda state, e: batched(wide, state.double(), e.double()).to(state.dtype)  # noqa: E731
        return returns_at(sample_trajectories(dynamics, chosen, start, noise), [len(noise)], gamma)[0]

    plus, minus = (returns(theta + sign * sigma * directions) for sign in (1, -1))
    return (plus + minus) / 2, ((plus - minus) / (2 * sigma))[:, None] * directions


def variance_optimal_alpha(first: Tensor, zeroth: Tensor) -> float:
    """Find alpha in [0, 1] that minimises the variance of alpha first + (1 - alpha) zeroth; the covariance of shared samples counts.

    first, zeroth: per-sample gradients [N, P].
    """
    one, zero = _centred_pair(first, zeroth)
    v1, v0, shared = (float((a * b).sum()) for a, b in ((one, one), (zero, zero), (one, zero)))
    spread = v1 + v0 - 2 * shared
    return 1.0 if spread <= 0 else min(max((v0 - shared) / spread, 0.0), 1.0)


def confidence_alpha(first: Tensor, zeroth: Tensor, *, tolerance: float, failure: float = 0.05) -> float:
    """Lower the variance-optimal alpha so far that the mixture's bias stays below `tolerance` with probability 1 - failure.

    The zeroth-order mean is unbiased and, by Chebyshev, within eps = sqrt(tr Var / (N failure)) of the truth; the first-order mean is
    B away from it. alpha B + eps <= tolerance then bounds the mixture's error (Suh et al. 2022, their Bernstein bound replaced by one
    that assumes no range). tolerance <= eps: 0, the samples cannot vouch for any share.
    """
    _, zero = _centred_pair(first, zeroth)
    if not tolerance > 0 or not 0 < failure < 1:
        raise ValueError(f"confidence_alpha: need tolerance > 0 and 0 < failure < 1, got {tolerance} and {failure}")
    count = len(zeroth)
    eps = math.sqrt(float(zero.square().sum()) / (count - 1) / (count * failure))
    gap = float((first.mean(0) - zeroth.mean(0)).norm())
    best = variance_optimal_alpha(first, zeroth)
    if tolerance <= eps:
        return 0.0
    return best if best * gap <= tolerance - eps else (tolerance - eps) / gap


def mix(first: Tensor, zeroth: Tensor, alpha: float) -> Tensor:
    """Compute alpha first + (1 - alpha) zeroth, sample by sample; [N, P]."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"mix: alpha must lie in [0, 1], got {alpha}")
    _centred_pair(first, zeroth)
    return alpha * first + (1 - alpha) * zeroth


def _centred_pair(first: Tensor, zeroth: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape != zeroth.shape or first.dim() != 2:
        raise ValueError(f"first and zeroth must have one shape [N, P], got {tuple(first.shape)} and {tuple(zeroth.shape)}")
    check_samples(first, "a mixture")
    return first - first.mean(0), zeroth - zeroth.mean(0)
