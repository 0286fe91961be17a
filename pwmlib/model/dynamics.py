"""One protocol for true, simulated and learned dynamics, and the rollout written once against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Dynamics", "Policy", "Rollout", "rollout", "valued_states"]

Policy = Callable[[Tensor, Tensor | None], Tensor]
"""(state [batch, state_dim], noise [batch, action_dim] or None) -> action [batch, action_dim] in [-1, 1]."""


@runtime_checkable
class Dynamics(Protocol):
    """What PWM, SHAC and the gradient estimators need of a world: batched torch tensors in, differentiable tensors out."""

    state_dim: int
    action_dim: int

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Next state. state: [..., state_dim], action: [..., action_dim] in [-1, 1]. Returns [..., state_dim]."""
        ...

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Reward of the transition, shape [...]; any number of leading dimensions, so that a whole rollout is one call."""
        ...

    def done(self, next_state: Tensor) -> Tensor | None:
        """Bool [...], True where the episode terminated in next_state; None when episodes never terminate."""
        ...


@dataclass(frozen=True)
class Rollout:
    """A batch of imagined trajectories, time first."""

    states: Tensor
    """s_0 ... s_H, shape [horizon + 1, batch, state_dim]."""
    actions: Tensor
    """a_0 ... a_{H-1}, shape [horizon, batch, action_dim]."""
    rewards: Tensor
    """r_0 ... r_{H-1}, shape [horizon, batch]."""
    terminated: Tensor | None
    """Bool, shape [horizon, batch]: s_{t+1} is terminal or comes after a terminal state; None when nothing terminates."""

    @property
    def happened(self) -> Tensor:
        """Bool, shape [horizon, batch]: no step before t terminated. The other steps count for nothing, here or anywhere."""
        if self.terminated is None:
            return torch.ones_like(self.rewards, dtype=torch.bool)
        over = self.terminated.cummax(0).values
        return ~torch.cat([torch.zeros_like(over[:1]), over[:-1]])

    @property
    def reached(self) -> Tensor:
        """s_1 ... s_H for the critics, shape [horizon, batch, state_dim]: zeros from a terminal state on (`valued_states`)."""
        return valued_states(self.states[1:], None if self.terminated is None else self.terminated.cummax(0).values)

    def detach(self) -> Rollout:
        """The same numbers without a graph."""
        return Rollout(self.states.detach(), self.actions.detach(), self.rewards.detach(), self.terminated)


def rollout(
    dynamics: Dynamics,
    policy: Policy,
    start: Tensor,
    *,
    noise: Tensor,
    detach_policy_input: bool = False,
) -> Rollout:
    """Roll `policy` for len(noise) steps from `start`; differentiable in the policy's parameters (reparameterised noise).

    start: shape [batch, state_dim]. noise: standard normal, shape [horizon, batch, action_dim].
    detach_policy_input: the policy sees sg(s_t), which drops da/ds from the gradient (what the released code does).
    Nothing goes on from a terminal state: each step that does not happen begins at the trajectory's start again, so that no value or
    derivative beyond an end is NaN that was not NaN before. Rewards are evaluated for all steps at once.
    """
    state, begun, states, actions, ends = start, [], [start], [], []
    for step_noise in noise:
        action = policy(state.detach() if detach_policy_input else state, step_noise)
        begun.append(state)
        state = dynamics.advance(state, action)
        states.append(state)
        actions.append(action)
        done = dynamics.done(state)
        if done is not None:
            ends.append(done | ends[-1] if ends else done)
            state = torch.where(ends[-1].unsqueeze(-1), start.detach(), state)
    all_states, all_actions = torch.stack(states), torch.stack(actions)
    before = torch.stack(begun) if ends else all_states[:-1]
    rewards = dynamics.reward(before, all_actions, all_states[1:])
    return Rollout(all_states, all_actions, rewards, torch.stack(ends) if ends else None)


def valued_states(next_state: Tensor, terminated: Tensor | None) -> Tensor:
    """The states s_{t+1} that a critic is asked about, [..., n]: zeros where the episode terminated (bool [...]).

    V counts as 0 there whatever the critic says, but in a gradient 0 times the derivative at a state that is NaN or infinite is NaN.
    """
    return next_state if terminated is None else next_state.masked_fill(terminated.unsqueeze(-1), 0.0)
