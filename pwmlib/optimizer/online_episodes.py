"""PWM online (App. C.4): collect with the noisy policy, train the world model further, improve the policy, repeat.

It is also how a fresh machine gets data of mixed quality: the episodes of a run are the replay of a learning agent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pwmlib.data import Episode, SliceSampler, make_behaviour
from pwmlib.data.store import record
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.settings import Count, Whole, settings
from pwmlib.tasks import Environment

from .actor_critic import Actor
from .pwm import PWM, PWMConfig

__all__ = ["OnlineAgent", "OnlineConfig", "policy_actor", "replay_starts"]


@settings
class OnlineConfig:
    """Settings of a run on one task; updates per episode are after each collected episode."""

    episodes: Count = 60
    """Episodes of the learning agent, after the random ones."""
    random_episodes: Whole = 5
    """Before the first update; of the given policy where there is one."""
    model_updates: Whole = 100
    policy_updates: Whole = 60
    first_model_updates: Whole = 300
    """World-model updates on the random episodes, before the first policy update."""
    model: WorldModelConfig = WorldModelConfig()
    training: WorldModelTraining = WorldModelTraining()
    policy: PWMConfig = PWMConfig()


class OnlineAgent:
    """The loop of App. C.4 on one real task, resumable after any episode.

    `advance` adds one episode and the updates that follow it. `episodes` holds all episodes so far, in order.
    With `model` (a trained single-task world model), `actor_state` and `critics_state` (a policy's and its critics' state_dict) it
    fine-tunes those online instead of starting anew; config.model is ignored then. replay: shards of earlier episodes, as
    `EpisodeStore.arrays` gives them, that it learns from besides its own.
    """

    def __init__(
        self,
        env: Environment,
        config: OnlineConfig | None = None,
        *,
        model: WorldModel | None = None,
        actor_state: dict[str, Tensor] | None = None,
        critics_state: dict[str, Tensor] | None = None,
        replay: Sequence[np.ndarray] = (),
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self.env, self.config, self.seed = env, config or OnlineConfig(), seed
        c, t = self.config, env.task
        self.episodes: list[Episode] = []
        self._given_model, self._given_policy, self._replay = model is not None, actor_state is not None, tuple(replay)
        if model is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = WorldModel(t.obs_dim, t.action_dim, config=c.model)
        if (model.tasks, model.obs_dim, model.action_dim) != (1, t.obs_dim, t.action_dim):
            raise ValueError(
                f"OnlineAgent: {t.name} needs a model of 1 task, {t.obs_dim} observations and {t.action_dim} actions, got {model}"
            )
        self.model = model.to(device)
        self.data = SliceSampler([t], [self._replay])
        self.trainer = WorldModelTrainer(self.model, self.data, c.training, seed=seed)
        self.view = self._freeze()
        starts = replay_starts(lambda: self.view, self.data, 0, margin=c.policy.start_margin)
        self.learner = PWM(self.view, starts, c.policy, seed=seed, device=device)
        if actor_state is not None:
            self.learner.actor.load_state_dict(actor_state)
        if critics_state is not None:
            self.learner.critics.load_state_dict(critics_state)

    @property
    def finished(self) -> bool:
        """Whether all episodes have been collected."""
        return len(self.episodes) >= self.config.random_episodes + self.config.episodes

    def advance(self) -> dict[str, float]:
        """Collect one episode, then update model and policy. Returns scalars to log."""
        c, index = self.config, len(self.episodes)
        rng = np.random.default_rng([self.seed, index])
        episode_seed = int(rng.integers(2**31))
        if index < c.random_episodes and not self._given_policy:
            behaviour = ("uniform_random", "correlated_random")[index % 2]
            act = make_behaviour(behaviour, self.env, rng)
        else:
            behaviour, act = "learning_agent", policy_actor(self.learner.actor, self.view, self.env, rng)
        self._add(record(self.env, act, seed=episode_seed, behaviour=behaviour))
        metrics = {"episode": float(index + 1), "return": self.episodes[-1].total_reward}
        if index + 1 < c.random_episodes:
            return metrics
        first = index + 1 == max(1, c.random_episodes)
        if first and c.training.standardise_obs and not self._given_model:
            mean, std, *_ = self.data.statistics()
            self.model.set_statistics(mean, std)
        model_metrics, policy_metrics = {}, {}
        for _ in range(c.first_model_updates if first else c.model_updates):
            model_metrics = self.trainer.update()
        self._refresh()
        for _ in range(c.policy_updates):
            policy_metrics = self.learner.update()
        return metrics | {f"model_{k}": v for k, v in model_metrics.items()} | policy_metrics

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the configuration, episodes included."""
        return {
            "trainer": self.trainer.state_dict(),
            "learner": self.learner.state_dict(),
            "episodes": [{**vars(e), "rows": torch.from_numpy(e.rows)} for e in self.episodes],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.episodes = []
        self.data.clear(0)
        for shard in self._replay:
            self.data.add(0, shard)
        for e in state["episodes"]:
            self._add(Episode(**{**e, "rows": e["rows"].numpy()}))
        self.trainer.load_state_dict(state["trainer"])
        self.learner.load_state_dict(state["learner"])
        self._refresh()

    def _add(self, episode: Episode) -> None:
        self.episodes.append(episode)
        self.data.add(0, episode.rows[None])

    def _freeze(self) -> FrozenWorldModel:
        policy = self.config.policy
        return FrozenWorldModel(self.model, precision=policy.precision, reward_symexp=policy.reward_symexp)

    def _refresh(self) -> None:
        self.view = self._freeze()
        self.learner.dynamics = self.view


def policy_actor(
    actor: Actor, view: FrozenWorldModel, env: Environment, rng: np.random.Generator | None = None, *, noise_scale: np.ndarray | None = None
):
    """Make the act function of a policy in the real task: pad, encode, tanh(mu) (plus the policy's noise with an rng), unpad.

    It takes observations [obs_dim] of one episode or [n, obs_dim] of several in lock-step. noise_scale: factors on the noise, [n, 1].
    """
    obs_dim, action_dim = env.task.obs_dim, env.task.action_dim
    device = view.model.obs_mean.device

    @torch.no_grad()
    def act(obs: np.ndarray, step: int) -> np.ndarray:
        padded = torch.zeros(*obs.shape[:-1], view.obs_dim)
        padded[..., :obs_dim] = torch.from_numpy(obs)
        noise = None
        if rng is not None:
            drawn = rng.standard_normal((*obs.shape[:-1], actor.action_dim)) * (1.0 if noise_scale is None else noise_scale)
            noise = torch.from_numpy(drawn.astype(np.float32)).to(device)
        return actor(view.encode(padded.to(device)), noise)[..., :action_dim].cpu().numpy()

    return act


def replay_starts(
    view: Callable[[], FrozenWorldModel], data: SliceSampler, task_index: int, *, margin: int = 0
) -> Callable[[int, torch.Generator], Tensor]:
    """Make the function that draws start states z = E(s) of random replay states by the learner's generator."""

    def draw(batch: int, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        obs = data.start_observations(task_index, batch, np.random.default_rng(seed), margin=margin)
        frozen = view()
        with torch.no_grad():
            return frozen.encode(obs.to(frozen.model.obs_mean.device))

    return draw
