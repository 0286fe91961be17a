"""Scores of a policy in the real task, beside what the model believes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pwmlib.data import Episode
from pwmlib.data.store import record_together
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.twohot import symlog
from pwmlib.optimizer.actor_critic import Actor, Critics
from pwmlib.optimizer.online_episodes import policy_actor
from pwmlib.tasks import Environment

__all__ = ["EVALUATION_SEED", "Evaluation", "evaluate_policy", "summarise"]

EVALUATION_SEED = 10_000_000
"""First seed of evaluation episodes; training episodes use smaller or hashed ones."""


@dataclass(frozen=True)
class Evaluation:
    """The scores are means over episodes of the deterministic policy."""

    score: float
    """0 to 100: return / 10 (dm_control), last-step success x 100 (MetaWorld)."""
    mean_return: float
    success: float
    touched: float
    """Fraction of episodes with success at the last, at any step."""
    episodes: int

    def row(self) -> dict[str, Any]:
        """Give them as columns of a tidy table."""
        return asdict(self)


def summarise(env: Environment, episodes: list[Episode]) -> Evaluation:
    """Average episodes into an Evaluation."""
    mean_return = float(np.mean([e.total_reward for e in episodes]))
    success = float(np.mean([e.success for e in episodes]))
    touched = float(np.mean([e.touched for e in episodes]))
    return Evaluation(env.task.score(mean_return, success), mean_return, success, touched, len(episodes))


def evaluate_policy(envs: Sequence[Environment], actor: Actor, view: FrozenWorldModel) -> tuple[Evaluation, list[Episode]]:
    """Run the deterministic policy tanh(mu) for an episode in each environment of one task, in lock-step, from EVALUATION_SEED on."""
    act = policy_actor(actor, view, envs[0])
    seeds = [EVALUATION_SEED + i for i in range(len(envs))]
    played = record_together(envs, act, seeds=seeds, behaviour="evaluation")
    return summarise(envs[0], played), played


@torch.no_grad()
def believed_and_real_value(
    critics: Critics, view: FrozenWorldModel, episodes: list[Episode], *, obs_dim: int, gamma: float
) -> tuple[float, float]:
    """Compare V(E(s_0)) with the discounted return that really followed; the first far above it is a model that is being exploited.

    Both are means over episodes in the units that the critics learn: symlog rewards unless the view inverts them.
    """
    padded = torch.zeros(len(episodes), view.obs_dim)
    rewards = torch.from_numpy(np.stack([e.rows[1:, -1] for e in episodes]))
    for row, e in zip(padded, episodes, strict=True):
        row[:obs_dim] = torch.from_numpy(e.rows[0, :obs_dim])
    believed = critics.value(view.encode(padded.to(view.model.obs_mean.device))).mean()
    if view.model.config.two_hot is not None and not view.reward_symexp:
        rewards = symlog(rewards)
    weight = gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    return float(believed), float((rewards * weight).sum(1).mean())
