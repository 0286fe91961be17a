"""PWM on one task of the differentiable simulator: Algorithm 1 on a world model's gradients, the model trained as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pwmlib.continuation import Continued
from pwmlib.data.replay import Replay
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining
from pwmlib.model.world_model import WorldModel, WorldModelConfig, WorldModelLossConfig
from pwmlib.optimizer.shac import SHACConfig
from pwmlib.settings import Count, Fraction, Whole, settings
from pwmlib.sim.env import DifferentiableEnv

from .model_env import Imagination, ModelEnv
from .pwm import PWM

__all__ = ["OnlinePWM", "OnlinePWMConfig"]

# Two critics and short fits: what a core can afford. Everything is a named field of SHACConfig.
_ACTOR_CRITIC = SHACConfig(
    updates=800,
    horizon=16,
    actor_lr=1e-3,
    critic_hidden=(200, 100),
    critics=2,
    critic_value="min",
    critic_grad_norm=100.0,
    detach_policy_input=True,
    normalise_obs=False,
)


@settings
class OnlinePWMConfig:
    """Settings of one learner."""

    actor_critic: SHACConfig = _ACTOR_CRITIC
    model: WorldModelConfig = WorldModelConfig(
        latent_dim=64, encoder_hidden=(128,), dynamics_hidden=(256, 256), reward_hidden=(256, 256), task_dim=0, two_hot=None
    )
    training: WorldModelTraining = WorldModelTraining(
        horizon=5, batch=128, lr=3e-4, final_lr=1e-5, standardise_obs=True,
        loss=WorldModelLossConfig(dynamics_coef=20.0, dynamics_reduction="mean", normalise_reward=True),
    )  # fmt: skip
    """Its learning rate falls over all updates of the model, or see `lr_decay`; `updates` of it is not used."""
    pretraining_updates: Whole = 6000
    """Of the world model on a given replay, before the policy moves."""
    model_updates: Whole = 4
    """Of the world model after each policy update."""
    imagination: Imagination = "reencode"
    statistics: Literal["first_data", "running"] = "first_data"
    """Moments by which observations, and rewards with `normalise_reward`, are standardised: those of what the model begins with, or of
    the whole replay as it grows (released code: of rewards)."""
    real_reward: bool = False
    reward_symexp: bool = True
    replay_steps: Count = 20_000
    """Steps of each environment that the replay holds."""
    ending_share: Fraction = 0.25
    recent_share: Fraction = 0.3
    recent_steps: Whole = 512
    """See `Replay`."""
    random_steps: Count = 160
    """Of uniform random actions before anything is learned, where there is no given replay."""
    first_model_updates: Whole = 500
    """On them."""
    lr_decay: Literal["all", "online"] = field(default="all", metadata={"later": True})
    """Over which of the model's updates its learning rate falls: all, or those after the ones before the policy moves (released)."""

    def released(self) -> OnlinePWMConfig:
        """Give the same sizes with every switch of the released single-task code; docs/errata.md lists them."""
        loss = replace(self.training.loss.released(), normalise_reward=True, dynamics_coef=1.0, reward_coef=1.0)
        return replace(
            self,
            actor_critic=replace(
                self.actor_critic,
                critic_value="min",
                target_kept=0.0,
                terminal_discount="gamma^(H+1)",
                detach_policy_input=True,
                return_scaling="running_std",
            ),
            model=replace(self.model, two_hot=None),
            training=replace(self.training, final_lr=1e-5, standardise_obs=False, loss=loss),
            imagination="open_loop",
            statistics="running",
            ending_share=0.0,
            recent_share=0.0,
            lr_decay="online",
        )


class OnlinePWM(Continued):
    """An `update` is one of the policy on the model's gradients, with the real environments driving, and `model_updates` of the model.

    given: a replay of another learner, which the world model is pre-trained on (`pretraining_updates`) and goes on to learn from.
    """

    kept, dispensable = ("learner", "trainer", "replay"), ("replay",)

    def __init__(self, env: DifferentiableEnv, config: OnlinePWMConfig | None = None, *, seed: int = 0, given: Replay | None = None):
        self.config, self.env = config or OnlinePWMConfig(), env
        c = self.config
        shares = {"ending_share": c.ending_share, "recent_share": c.recent_share, "recent_steps": c.recent_steps}
        self.replay = Replay(c.replay_steps, env.count, env.obs_dim, env.action_dim, **shares)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = WorldModel(env.obs_dim, env.action_dim, config=c.model).to(env.simulator.device)
        self.updates_before = c.pretraining_updates if given is not None else c.first_model_updates
        total = max(1, self.updates_before + c.actor_critic.updates * c.model_updates)
        decay_from = self.updates_before if c.lr_decay == "online" else 0
        self.trainer = WorldModelTrainer(self.model, self.replay, replace(c.training, updates=total), seed=seed, decay_from=decay_from)
        if given is not None:
            self.replay.load_state_dict(given.state_dict())
        else:
            self._act_at_random(seed)
        self._standardise()
        self.world = ModelEnv(
            env, self.model, self.replay, imagination=c.imagination, real_reward=c.real_reward, reward_symexp=c.reward_symexp
        )
        device = env.simulator.device
        self.learner = PWM(self.world, None, c.actor_critic, seed=seed, device=device, record=self.world.keep)
        self.world.reset(seed=seed, spread=True)

    @property
    def step(self) -> int:
        """Updates so far; those of the world model alone count from minus `updates_before` to 0."""
        return self.learner.step if self.trainer.step >= self.updates_before else self.trainer.step - self.updates_before

    def actor(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Act on observations, as `pwmlib.sim.training_env.evaluate_policy` wants it."""
        return self.learner.actor(self.world.encode(obs), noise)

    def update(self) -> dict[str, float]:
        """Update the world model alone while it is being pre-trained, then everything; returns scalars to log."""
        if self.trainer.step < self.updates_before:
            metrics = self.trainer.update()
            if self.trainer.step == self.updates_before:
                self.world.refresh()
                self.world.reset(spread=True)
            return {f"model_{k}": v for k, v in metrics.items()}
        metrics, model_metrics = self.learner.update(), {}
        if self.config.statistics == "running":
            self._standardise()
        for _ in range(self.config.model_updates):
            model_metrics = self.trainer.update()
        self.world.refresh()
        return metrics | {f"model_{k}": v for k, v in model_metrics.items()}

    def _act_at_random(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.env.reset(seed=seed)
        for _ in range(self.config.random_steps):
            drawn = torch.rand(self.env.count, self.env.action_dim, generator=generator)
            self.replay.live(self.env, 2 * drawn.to(self.env.simulator.device) - 1)

    def _standardise(self) -> None:
        self.model.set_statistics(*self.config.training.standardisation(*self.replay.statistics()))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        super().load_state_dict(state)
        self.world.refresh()
