"""Trajectories of a policy, and the adjoints of their returns for all samples and all horizons in one sweep backward in time."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pwmlib.model.dynamics import Dynamics, Policy

__all__ = ["Trajectories", "action_adjoints", "check_horizons", "open_loop", "returns_at", "sample_trajectories"]


@dataclass(frozen=True)
class Trajectories:
    """N sampled trajectories of T steps, time first, without a graph."""

    states: Tensor
    """[T + 1, N, state_dim]; the start again after an episode has ended, so that nothing is NaN there that was not NaN before."""
    actions: Tensor
    """[T, N, action_dim]."""
    noise: Tensor
    """Standard normal noise of the policy, [T, N, action_dim]."""
    rewards: Tensor
    """[T, N]; 0 after an episode has ended."""
    alive: Tensor
    """[T + 1, N] as 0 and 1: the episode has not ended before step t."""


def check_horizons(horizons: Sequence[int] | None, steps: int) -> list[int]:
    """Return the horizons, by default every one from 1 to `steps`; raises ValueError unless they ascend within these."""
    chosen = list(range(1, steps + 1)) if horizons is None else [int(h) for h in horizons]
    if not chosen or sorted(set(chosen)) != chosen or chosen[0] < 1 or chosen[-1] > steps:
        raise ValueError(f"horizons must be ascending integers from 1 to the {steps} steps of noise, got {horizons}")
    return chosen


def open_loop(dynamics: Dynamics, start: Tensor, actions: Tensor) -> Trajectories:
    """Roll out given actions, [T, N, action_dim]; `noise` of the result is the actions."""
    return sample_trajectories(dynamics, lambda state, action: action, start, actions)


@torch.no_grad()
def sample_trajectories(dynamics: Dynamics, policy: Policy, start: Tensor, noise: Tensor) -> Trajectories:
    """Roll the policy with given noise. start: [N, state_dim] (one start for all: expand it); noise: [T, N, action_dim]."""
    if start.dim() != 2 or noise.dim() != 3 or noise.shape[1] != len(start) or noise.shape[2] != dynamics.action_dim:
        raise ValueError(
            f"sample_trajectories: start has shape {tuple(start.shape)} and noise {tuple(noise.shape)}; expected [N, state_dim] and "
            f"[T, N, {dynamics.action_dim}] with the same N"
        )
    state, alive = start, torch.ones(len(start), dtype=start.dtype, device=start.device)
    states, actions, rewards, living = [start], [], [], [alive]
    for step_noise in noise:
        action = policy(state, step_noise)
        following = dynamics.advance(state, action)
        rewards.append(dynamics.reward(state, action, following).masked_fill(alive == 0, 0.0))
        state, done = following, dynamics.done(following)
        if done is not None:
            alive = alive * (~done).to(alive.dtype)
            state = following.where(alive[:, None] > 0, start)
        states.append(state)
        actions.append(action)
        living.append(alive)
    return Trajectories(torch.stack(states), torch.stack(actions), noise, torch.stack(rewards), torch.stack(living))


def returns_at(path: Trajectories, horizons: Sequence[int], gamma: float) -> Tensor:
    """Compute J^H of each sample, the sum of gamma^t r_t over t < H: [len(horizons), N]."""
    discount = gamma ** torch.arange(len(path.rewards), dtype=path.rewards.dtype, device=path.rewards.device)
    total = (path.rewards * discount[:, None]).cumsum(0)
    return total[torch.tensor(horizons, device=total.device) - 1]


def action_adjoints(
    dynamics: Dynamics, path: Trajectories, *, gamma: float, horizons: Sequence[int], policy: Policy | None = None
) -> Tensor:
    """Compute d J^H / d a_t of every sample and horizon, [K, T, N, action_dim].

    policy: its feedback is differentiated too (the total derivative of Eq. 3); None holds the later actions fixed (open loop).
    One sweep from the last step to the first; at each step all horizons beyond it are one batch of K x N rows, and only vectors of
    state size are kept. Raises ValueError where the dynamics gives no gradient.
    """
    steps, count, dim = len(path.actions), path.states.shape[1], path.states.shape[2]
    adjoint = torch.zeros(len(horizons), count, dim, dtype=path.states.dtype, device=path.states.device)
    on_actions = torch.zeros(len(horizons), *path.actions.shape, dtype=adjoint.dtype, device=adjoint.device)
    for t in reversed(range(steps)):
        first = bisect_right(horizons, t)  # horizons[first:] reach beyond step t
        active = len(horizons) - first
        if not active:
            continue
        repeat = lambda x: x.expand(active, *x.shape).reshape(active * count, *x.shape[1:])  # noqa: B023, E731
        state, action = repeat(path.states[t]).requires_grad_(), repeat(path.actions[t]).requires_grad_()
        following = dynamics.advance(state, action)
        reward = dynamics.reward(state, action, following)
        if not following.requires_grad:
            raise ValueError(
                f"{type(dynamics).__name__}.advance gives no gradient: a first-order estimator needs differentiable dynamics; "
                "zeroth_order does not"
            )
        seeds = [(adjoint[first:] * path.alive[t + 1][:, None]).reshape(following.shape)]
        outputs = [following]
        if reward.requires_grad:
            outputs.append(reward)
            seeds.append(repeat(gamma**t * path.alive[t]))
        g_state, g_action = torch.autograd.grad(outputs, [state, action], seeds, allow_unused=True)
        g_action = torch.zeros_like(action) if g_action is None else g_action
        g_state = torch.zeros_like(state) if g_state is None else g_state
        if policy is not None:
            seen = repeat(path.states[t]).requires_grad_()
            chosen = policy(seen, repeat(path.noise[t]))
            if chosen.requires_grad:
                (feedback,) = torch.autograd.grad(chosen, seen, g_action, allow_unused=True)
                g_state = g_state if feedback is None else g_state + feedback
        on_actions[first:, t] = g_action.view(active, count, -1)
        adjoint[first:] = g_state.view(active, count, dim)
    return on_actions
