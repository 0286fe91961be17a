"""Policies that stay near the data's good actions: an option of ours that the paper does not have, against cheated world models.

Such a policy begins as an imitation, and then climbs the imagined return as PWM does, while the distance of its actions from the data's
counts as well (as in TD3+BC, Fujimoto and Gu 2021). Where the model promises what the data do not bear out, the distance holds it back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import gradient_step
from pwmlib.optimizer.imagination import Rollout
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.settings import Count, NonNegative, Positive, settings


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
    """Steps of the data in each update, of imitation or of extraction."""


@dataclass(frozen=True)
class Shown:
    """The steps of a task's episodes."""

    obs: Tensor
    """[n, obs_dim]."""
    action: Tensor
    """What the data do there, [n, action_dim]."""
    weight: Tensor
    """How often a step is imitated, up to a factor, [n]."""


MOST = 200_000
"""Steps of a task that are kept: those of random whole episodes, where there are more."""


def shown(shards: Sequence[np.ndarray], obs_dim: int, sharpness: float) -> Shown:
    """Read the steps that a policy is held to, those behind an episode's end left out; at most about `MOST`.

    shards: of an `EpisodeStore`, rows (observation | action | reward), each [episodes, decisions + 1, columns]; a piece of an episode
    counts as an episode. sharpness: that of `Anchor`.
    """
    returns = np.concatenate([np.nansum(a[:, 1:, -1], axis=1, dtype=np.float64) for a in shards])
    score = sharpness * (returns - returns.mean()) / max(float(returns.std()), 1e-6)
    weight = np.exp(score - (score.max() if score.max() > 80 else 0.0)).astype(np.float32)
    lengths = np.concatenate([np.full(len(a), a.shape[1] - 1) for a in shards])
    kept = np.ones(len(returns), bool)
    if lengths.sum() > MOST:
        order = np.random.default_rng(0).permutation(len(returns))
        kept[order[np.cumsum(lengths[order]) > MOST]] = False
    ends, parts = np.cumsum([len(a) for a in shards])[:-1], []
    for rows, each, chosen in zip(shards, np.split(weight, ends), np.split(kept, ends), strict=True):
        rows, each = rows[chosen], each[chosen]
        reward = rows[:, 1:, -1]
        lived = np.isfinite(reward)
        weights = np.broadcast_to(each[:, None], reward.shape)
        parts.append((rows[:, :-1, :obs_dim][lived], rows[:, 1:, obs_dim:-1][lived], weights[lived]))
    return Shown(*(torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)))


class AnchoredPWM(PWM):
    """`PWM` that begins as an imitation of the data's good actions and is held near them; it imagines from all the data's states.

    Its loss has a scale of its own, so that of `PWMConfig` (return_scaling, actor_loss_scale) does not count.
    """

    def __init__(
        self, view: FrozenWorldModel, config: PWMConfig, anchor: Anchor, data: Shown, *, seed: int = 0, device: str | torch.device = "cpu"
    ):
        """Build the networks and let the actor imitate."""
        super().__init__(view, self._draw_states, config, seed=seed, device=device)
        padded = pad(data.obs, (0, view.obs_dim - data.obs.shape[1]))
        with torch.no_grad():
            self._states = torch.cat([view.encode(part) for part in padded.to(self.device).split(10_000)])
        action = data.action
        if not view.model.config.apply_action_mask:  # then what is padding reaches the dynamics; in the data it is 0
            action = pad(action, (0, view.action_dim - action.shape[1]))
        self.anchor, self._actions, self._weight = anchor, action.to(self.device), data.weight.to(self.device)
        if self.actor.moments is not None:
            self.actor.moments.add(self._states)
        rate, optimiser = self.config.actor_lr, torch.optim.Adam(self.actor.parameters(), lr=self.config.actor_lr)
        for update in range(anchor.imitation):
            lr = rate + (self.config.final_lr - rate) * update / anchor.imitation
            gradient_step(optimiser, self.distance(), lr=lr, max_norm=1.0, update=update + 1, name="imitation")

    def _draw_states(self, batch: int, generator: torch.Generator) -> Tensor:
        return self._states[torch.randint(len(self._states), (batch,), generator=generator, device=self.device)]

    def distance(self) -> Tensor:
        """Compute the mean squared distance of the policy's actions from the data's good ones, a scalar."""
        rows = torch.multinomial(self._weight, self.anchor.batch, replacement=True, generator=self.generator)
        action = self.actor(self._states[rows], None)[:, : self._actions.shape[1]]  # the rest is padding
        return (action - self._actions[rows]).square().sum(-1).mean()

    def actor_loss(self, roll: Rollout) -> Tensor:
        """Compute the distance from the data's actions, less the imagined return in units of its own size; a scalar."""
        returns = self.config.returns(roll, self.value)
        return self.distance() - self.anchor.climb * returns.mean() / returns.detach().abs().mean().clamp(min=1e-6)
