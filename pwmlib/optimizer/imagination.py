"""Imagined rollouts of a policy (Sec. 3.3), and what actor and critics learn from them (Eq. 6-8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pwmlib.model.dynamics import Dynamics, Episodes, Policy

__all__ = ["Rollout", "actor_returns", "critic_targets", "imagine", "td_lambda"]


@dataclass(frozen=True)
class Rollout:
    """A batch of trajectories of H steps, time first."""

    states: Tensor
    """s_0 ... s_{H-1}, in which the policy acted, shape [horizon, batch, state_dim]."""
    actions: Tensor
    """a_0 ... a_{H-1}, shape [horizon, batch, action_dim]."""
    rewards: Tensor
    """r_0 ... r_{H-1}, shape [horizon, batch]."""
    reached: Tensor
    """s_1 ... s_H, where each action led, before a new episode begins, shape [horizon, batch, state_dim]."""
    terminated: Tensor | None = None
    """Bool, shape [horizon, batch]: the episode ended in the state reached, whose value is 0; None when nothing terminates."""
    truncated: Tensor | None = None
    """Bool, shape [horizon, batch]: the episode was cut there, its value goes on; None when nothing is cut."""
    restarts: bool = False
    """Whether an episode that ended is followed by a new one; else the steps after it count for nothing."""

    @property
    def happened(self) -> Tensor:
        """True where no step before this one ended the trajectory, [horizon, batch]; the others count for nothing anywhere."""
        if self.terminated is None or self.restarts:
            return torch.ones_like(self.rewards, dtype=torch.bool)
        over = self.terminated.cummax(0).values
        return ~torch.cat([torch.zeros_like(over[:1]), over[:-1]])

    @property
    def valued(self) -> Tensor:
        """The states that a critic is asked about: `reached`, but zeros where the episode has terminated.

        V counts as 0 there whatever the critic says, but in a gradient 0 times the derivative at a state that is NaN would be NaN.
        """
        return self.reached if self.terminated is None else self.reached.masked_fill(self.terminated.unsqueeze(-1), 0.0)

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The last states, [batch, state_dim], and whether the trajectories go on from there, [batch]."""
        return self.reached[-1], self.happened[-1] if self.terminated is None else ~self.terminated.any(0)

    def detach(self) -> Rollout:
        """Give the same numbers without a graph."""
        parts = {name: getattr(self, name).detach() for name in ("states", "actions", "rewards", "reached")}
        return replace(self, **parts)


def imagine(dynamics: Dynamics | Episodes, actor: Policy, start: Tensor, *, noise: Tensor, detach_policy_input: bool = False) -> Rollout:
    """Roll a policy out in a world, differentiably in the policy's parameters (reparameterised noise).

    In `Dynamics` nothing goes on from a terminal state: the steps that do not happen begin at the trajectory's start again, so that no
    number beyond an end is NaN that was not NaN before. In `Episodes` (a simulator) a new episode begins there.

    Args:
        dynamics: a learned model, a simulator, or anything else with one of the two protocols.
        actor: (state, noise) -> action.
        start: the first states, shape [batch, state_dim].
        noise: standard normal, shape [horizon, batch, action_dim].
        detach_policy_input: let the policy see sg(s_t), which drops da/ds from the gradient (released code).

    Returns:
        The trajectories, with the graph from rewards and states to the policy's parameters.
    """
    state, seen, actions, reached, ends, steps = start, [], [], [], [], []
    episodes = isinstance(dynamics, Episodes)
    for step_noise in noise:
        action = actor(state.detach() if detach_policy_input else state, step_noise)
        seen.append(state)
        actions.append(action)
        if episodes:
            step = dynamics.step(action)
            steps.append((step.reward, step.final_obs, step.terminated, step.truncated))
            state = step.obs
            continue
        state = dynamics.advance(state, action)
        reached.append(state)
        done = dynamics.done(state)
        if done is not None:
            ends.append(done | ends[-1] if ends else done)
            state = torch.where(ends[-1].unsqueeze(-1), start.detach(), state)
    states, taken = torch.stack(seen), torch.stack(actions)
    if episodes:
        rewards, *rest = (torch.stack(x) for x in zip(*steps, strict=True))
        return Rollout(states, taken, rewards, *rest, restarts=True)
    following = torch.stack(reached)
    rewards = dynamics.reward(states, taken, following)  # of all steps at once
    return Rollout(states, taken, rewards, following, torch.stack(ends) if ends else None)


def actor_returns(
    roll: Rollout, value: Callable[[Tensor], Tensor], *, gamma: float, lam: float | None = None, discounts_at_end: int = 1
) -> Tensor:
    """Compute the return of each trajectory, which the actor maximises (Eq. 6).

    sum_{h<H} gamma^h r_h + gamma^H V(z_H). After a termination nothing more counts; where an episode was cut, V stands for the rest, and
    what a new episode brings is discounted from its own beginning.

    Args:
        roll: the trajectories.
        value: states [..., state_dim] -> V [...].
        gamma: discount of one step.
        lam: the lambda-return of the first state instead (Fig. 19).
        discounts_at_end: times that gamma is taken between the last reward and V; 2 is the released code's gamma^(H+1).

    Returns:
        Shape [batch].
    """
    if lam is not None:
        flags = {"terminated": roll.terminated, "truncated": roll.truncated}
        return td_lambda(roll.rewards, value(roll.valued), gamma=gamma, lam=lam, **flags)[0]
    happened, over = roll.happened, roll.terminated
    time = torch.arange(len(happened), device=happened.device).unsqueeze(1).expand_as(happened)
    if over is not None and roll.truncated is not None and roll.restarts:  # step t is the (t - begun)th of its episode in this window
        ended = over | roll.truncated
        time = time - torch.cat([torch.zeros_like(time[:1]), ((time + 1) * ended)[:-1]]).cummax(0).values
    weight = gamma ** time.to(roll.rewards.dtype)
    goes_on = torch.zeros_like(happened) if roll.truncated is None else roll.truncated.clone()
    goes_on[-1] = True
    goes_on &= happened if over is None else happened & ~over
    asked = slice(-1, None) if roll.truncated is None else slice(None)
    beyond = gamma * weight[asked] * value(roll.valued[asked])
    if discounts_at_end > 1:
        beyond = torch.cat([beyond[:-1], gamma ** (discounts_at_end - 1) * beyond[-1:]])
    return (weight * roll.rewards.masked_fill(~happened, 0.0)).sum(0) + beyond.masked_fill(~goes_on[asked], 0.0).sum(0)


@torch.no_grad()
def critic_targets(roll: Rollout, value: Callable[[Tensor], Tensor], *, gamma: float, lam: float) -> Tensor:
    """Compute the targets of V(z_0) ... V(z_{H-1}), [horizon, batch] (Eq. 7-8); those of steps that did not happen mean nothing."""
    flags = {"terminated": roll.terminated, "truncated": roll.truncated}
    return td_lambda(roll.rewards, value(roll.valued), gamma=gamma, lam=lam, **flags)


def td_lambda(
    reward: Tensor,
    next_value: Tensor,
    *,
    gamma: float,
    lam: float,
    terminated: Tensor | None = None,
    truncated: Tensor | None = None,
) -> Tensor:
    """Compute the lambda-returns of a batch of rollouts by the backward recursion of Eq. 8.

    G_t = r_t + gamma [(1 - c_t) (1 - terminated_t) V(s_{t+1}) + c_t G_{t+1}], with c_t = lambda inside an episode and 0 at its
    end or at the end of the window. Eq. 8 is its closed form: (1 - lambda) sum_h lambda^(h-1) G^(h) + lambda^(H-t-1) G^(H-t).

    Args:
        reward: r_t, shape [horizon, ...].
        next_value: V of the state reached at step t (before any reset), same shape.
        gamma: discount of one step, in [0, 1].
        lam: lambda, in [0, 1].
        terminated: bool, same shape; the episode ended there, V counts as 0. What follows, NaN or not, changes no earlier target.
        truncated: bool, same shape; the episode was cut there, V is bootstrapped.

    Returns:
        Targets of V(s_t), shape [horizon, ...].

    Raises:
        ValueError: shapes that differ, or gamma or lam outside of [0, 1].
    """
    if reward.shape != next_value.shape:
        raise ValueError(f"td_lambda: reward {tuple(reward.shape)} and next_value {tuple(next_value.shape)} must have one shape")
    if not 0.0 <= lam <= 1.0 or not 0.0 <= gamma <= 1.0:
        raise ValueError(f"td_lambda: gamma and lam must lie in [0, 1], got gamma={gamma}, lam={lam}")
    ends = torch.zeros_like(reward, dtype=torch.bool)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if flag is not None:
            if flag.shape != reward.shape:
                raise ValueError(f"td_lambda: {name} {tuple(flag.shape)} must have the shape of reward {tuple(reward.shape)}")
            ends = ends | flag.bool()
    bootstrap = next_value if terminated is None else next_value.masked_fill(terminated.bool(), 0.0)
    targets: list[Tensor] = []
    following = bootstrap[-1]
    for t in reversed(range(reward.shape[0])):
        mixed = torch.where(ends[t], bootstrap[t], (1.0 - lam) * bootstrap[t] + lam * following)
        following = reward[t] + gamma * mixed
        targets.append(following)
    return torch.stack(targets[::-1])
