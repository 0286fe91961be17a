"""Scores of a policy in the real task, beside what the model believes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    mean_return, success, touched = np.mean([(e.total_reward, e.success, e.touched) for e in episodes], 0).tolist()
    return Evaluation(env.task.score(mean_return, success), mean_return, success, touched, len(episodes))


def evaluate_policy(envs: Sequence[Environment], actor: Actor, view: FrozenWorldModel) -> tuple[Evaluation, list[Episode]]:
    """Run the deterministic policy tanh(mu) for an episode in each environment of one task, in lock-step, from EVALUATION_SEED on."""
    act = policy_actor(actor, view, envs[0])
    seeds = [EVALUATION_SEED + i for i in range(len(envs))]
    played = record_together(envs, act, seeds=seeds, behaviour="evaluation")
    return summarise(envs[0], played), played


@torch.no_grad()
def believed_and_real_value(
    critics: Critics, view: FrozenWorldModel, episodes: Sequence[Episode], *, obs_dim: int, gamma: float
) -> tuple[float, float]:
    """Compare V(E(s_0)) with the discounted return that really followed; the first far above it is a model that is being exploited.

    Both are means over episodes in the units that the critics learn: symlog rewards unless the view inverts them.
    """
    obs, _, rewards = as_seen(view, episodes, obs_dim)
    believed = critics.value(view.encode(obs[0])).mean()
    weight = gamma ** torch.arange(len(rewards), dtype=rewards.dtype)
    return float(believed), float((weight @ rewards).mean())


def as_seen(view: FrozenWorldModel, episodes: Sequence[Episode], obs_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give observations [T + 1, episodes, ...] and actions as the view takes them, and on the CPU rewards as its critics learn them."""
    rows = torch.from_numpy(np.stack([e.rows for e in episodes], 1))
    obs, actions, rewards = rows[..., :obs_dim], rows[1:, :, obs_dim:-1], rows[1:, :, -1]
    if view.model.config.two_hot is not None and not view.reward_symexp:
        rewards = symlog(rewards)
    obs = torch.nn.functional.pad(obs, (0, view.obs_dim - obs_dim))
    actions = torch.nn.functional.pad(actions, (0, view.model.action_dim - actions.shape[-1]))
    return obs.to(view.model.obs_mean.device), actions.to(view.model.obs_mean.device), rewards
