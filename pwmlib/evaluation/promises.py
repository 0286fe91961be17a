"""What a frozen model promises along real episodes of its policy, what happened, and which of its parts the difference is due to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pwmlib.data import Episode
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.optimizer.actor_critic import Actor, Critics
from pwmlib.optimizer.imagination import imagine

from .scores import as_seen

__all__ = ["Promise", "promise"]


@dataclass(frozen=True)
class Promise:
    """Mean discounted returns from real states on, in the units that the critics learn: real and the four errors add up to promised."""

    promised: float
    """H imagined rewards and the critics' value of the last imagined state (Eq. 6)."""
    real: float
    """What followed in the real task."""
    reward: float
    """Predicted less real rewards of the same H steps, in the states that were really reached."""
    dynamics: float
    """Predicted rewards and the last value in the imagined states, less those in the states that were really reached."""
    beyond: float
    """What the model imagines from the state that was really reached after H steps, less what really followed there, discounted: an error
    of the model that critics inherit, because they learn inside it."""
    critics: float
    """The critics' value of that state, less what the model imagines from there, discounted: an error of their own."""


FAR = 0.01
"""What is left of the weight of a reward where an imagined future ends; the critics stand for the rest."""


@torch.no_grad()
def promise(
    actor: Actor, critics: Critics, view: FrozenWorldModel, episodes: Sequence[Episode], *, obs_dim: int, gamma: float, horizon: int = 16
) -> Promise:
    """Compare a model with the real episodes of a deterministic policy, from every `horizon`-th state of their first halves on.

    The critics know no end of an episode. What would follow one is taken to be its last reward, again and again.

    Args:
        actor: the policy that acted.
        critics: its critics.
        view: the frozen model that both were extracted from.
        episodes: of one task and of one length, as of `evaluate_policy`.
        obs_dim: of the task, before padding.
        gamma: discount of one decision.
        horizon: imagined steps.
    """
    obs, actions, rewards = as_seen(view, episodes, obs_dim)
    decisions = len(rewards)
    reached = view.encode(obs)
    predicted = view.reward(reached[:-1], actions).cpu()
    returns = torch.empty(decisions + 1, len(episodes))
    returns[-1] = rewards[-1] / (1 - gamma)
    for t in reversed(range(decisions)):
        returns[t] = rewards[t] + gamma * returns[t + 1]

    starts = torch.arange(0, max(1, decisions // 2), horizon)
    begin = reached[starts].flatten(0, 1)
    weight = gamma ** torch.arange(horizon, dtype=rewards.dtype).unsqueeze(1)

    def summed(x: Tensor) -> Tensor:
        """Discounted sums over the H steps from each start, [starts * episodes]."""
        windows = torch.stack([x[t : t + horizon] for t in starts.tolist()], 1)
        return (weight * windows.flatten(1)).sum(0)

    def dreamed(start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Discounted imagined rewards from each start, and the critics' value of the last state, discounted too."""
        roll = imagine(view, actor, start, noise=torch.zeros(steps, len(start), actor.action_dim, device=start.device))
        powers = gamma ** torch.arange(steps, dtype=rewards.dtype).unsqueeze(1)
        return (powers * roll.rewards.cpu()).sum(0), gamma**steps * critics.value(roll.reached[-1]).cpu()

    imagined, value = dreamed(begin, horizon)
    later, there = returns[starts + horizon].flatten(), reached[starts + horizon].flatten(0, 1)
    value_there = gamma**horizon * critics.value(there).cpu()
    imagined_there, value_far = dreamed(there, math.ceil(math.log(FAR, gamma)))
    imagined_there = gamma**horizon * (imagined_there + value_far)
    parts = {
        "promised": imagined + value,
        "real": returns[starts].flatten(),
        "reward": summed(predicted) - summed(rewards),
        "dynamics": imagined - summed(predicted) + value - value_there,
        "beyond": imagined_there - gamma**horizon * later,
        "critics": value_there - imagined_there,
    }
    return Promise(**{name: float(x.mean()) for name, x in parts.items()})
