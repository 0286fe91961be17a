"""Policies that stay near the data's good actions: an option of ours that the paper does not have, against cheated world models.

Such a policy begins as an imitation, and then climbs the imagined return as PWM does, while the distance of its actions from the data's
counts as well (as in TD3+BC, Fujimoto and Gu 2021). Where the model promises what the data do not bear out, the distance holds it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import gradient_step
from pwmlib.optimizer.imagination import Rollout
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.settings import Count, NonNegative, Positive, settings

__all__ = ["Anchor", "AnchoredPWM", "Shown", "shown"]


@settings
class Anchor:
    """How a policy is held to the data's actions."""

    climb: Positive = 10.0
    """Weight of the imagined return, in units of its own size, beside the mean squared distance to the data's actions."""
    sharpness: NonNegative = 1.0
    """An episode's steps are drawn with probability exp(sharpness (return - mean) / deviation), up to a factor."""
    imitation: Count = 4000
    """Updates of imitation alone, with which a policy begins."""
    batch: Count = 512


@dataclass(frozen=True)
class Shown:
    """The steps of a task's episodes."""

    obs: Tensor
    """[n, obs_dim]."""
    action: Tensor
    """What the data do there, [n, action_dim]."""
    weight: Tensor
    """How often a step is imitated, up to a factor, [n]."""


def shown(shards: Sequence[np.ndarray], obs_dim: int, sharpness: float) -> Shown:
    """Read the steps that a policy is held to.

    Args:
        shards: of an `EpisodeStore`, rows (observation | action | reward), each [episodes, decisions + 1, columns].
        obs_dim: the task's number of observations.
        sharpness: that of `Anchor`.

    Returns:
        All steps, those behind an episode's end left out.
    """
    obs, action, reward = (np.concatenate([f(a) for a in shards]) for f in (
        lambda a: a[:, :-1, :obs_dim], lambda a: a[:, 1:, obs_dim:-1], lambda a: a[:, 1:, -1],
    ))  # fmt: skip
    returns = np.nansum(reward, axis=1, dtype=np.float64)
    weight = np.exp(sharpness * (returns - returns.mean()) / max(float(returns.std()), 1e-6)).astype(np.float32)
    lived = np.isfinite(reward)
    each = (obs[lived], action[lived], np.broadcast_to(weight[:, None], reward.shape)[lived])
    return Shown(*map(torch.from_numpy, each))


class AnchoredPWM(PWM):
    """`PWM` that begins as an imitation of the data's good actions and is held near them; it imagines from all the data's states."""

    def __init__(
        self, view: FrozenWorldModel, config: PWMConfig, anchor: Anchor, data: Shown, *, seed: int = 0, device: str | torch.device = "cpu"
    ):
        """Build the networks and let the actor imitate.

        Args:
            view: the frozen world model of the task.
            config: the numbers of extraction.
            anchor: those of the imitation.
            data: the task's steps.
            seed: of all that is drawn.
            device: of the networks.
        """
        super().__init__(view, lambda batch, generator: self._states[self._drawn(batch)], config, seed=seed, device=device)
        padded = torch.zeros(len(data.obs), view.obs_dim)
        padded[:, : data.obs.shape[1]] = data.obs
        with torch.no_grad():
            self._states = torch.cat([view.encode(part) for part in padded.to(self.device).split(10_000)])
        self.anchor, self._actions, self._weight = anchor, data.action.to(self.device), data.weight.to(self.device)
        rate, optimiser = self.config.actor_lr, torch.optim.Adam(self.actor.parameters(), lr=self.config.actor_lr)
        for update in range(anchor.imitation):
            lr = rate + (self.config.final_lr - rate) * update / anchor.imitation
            gradient_step(optimiser, self.distance(), lr=lr, max_norm=1.0, update=update + 1, name="imitation")

    def _drawn(self, batch: int) -> Tensor:
        return torch.randint(len(self._states), (batch,), generator=self.generator, device=self.device)

    def distance(self) -> Tensor:
        """Compute the mean squared distance of the policy's actions from the data's good ones, a scalar."""
        rows = torch.multinomial(self._weight, self.anchor.batch, replacement=True, generator=self.generator)
        action = self.actor(self._states[rows], None)[:, : self._actions.shape[1]]  # the rest is padding
        return (action - self._actions[rows]).square().sum(-1).mean()

    def actor_loss(self, roll: Rollout) -> Tensor:
        """Compute the distance from the data's actions, less the imagined return in units of its own size; a scalar."""
        returns = self.config.returns(roll, self.value)
        return self.distance() - self.anchor.climb * returns.mean() / returns.detach().abs().mean().clamp(min=1e-6)
