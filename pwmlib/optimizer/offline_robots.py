"""PWM on one task without a real step of its own: world models of a given replay, frozen, and Algorithm 1 inside them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pwmlib.data.replay import Replay
from pwmlib.model.frozen import EnsembleDynamics, FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.settings import Count, Fraction, NonNegative, settings

from .online_robots import OnlinePWMConfig
from .pwm import PWM, PWMConfig

__all__ = ["OfflinePWM", "OfflinePWMConfig"]


@settings
class OfflinePWMConfig:
    """Settings of one learner, whose models have a termination head: a policy that falls must not go on earning rewards."""

    model: WorldModelConfig = replace(OnlinePWMConfig().model, termination=True)
    training: WorldModelTraining = OnlinePWMConfig().training
    """Its learning rate falls over `pretraining_updates`; `updates` of it is not used."""
    pretraining_updates: Count = 6000
    """Of each member."""
    members: Count = 1
    """World models; those after the first share its encoder."""
    pessimism: NonNegative = 0.0
    """See `EnsembleDynamics`."""
    policy: PWMConfig = PWMConfig(
        updates=800, actor_lr=1e-3, critic_lr=3e-3, critic_hidden=(200, 100), critics=2, critic_value="min", reward_symexp=True,
        continued=0.9,
    )  # fmt: skip
    initial_share: Fraction = 0.3
    """Of imagined trajectories that begin as episodes do, the others at any state of the replay."""


class OfflinePWM:
    """Trains the world models on the replay, one after the other, then the policy; it is called like `OnlinePWM`."""

    def __init__(self, given: Replay, config: OfflinePWMConfig | None = None, *, seed: int = 0, device: str | torch.device = "cpu"):
        c = self.config = config or OfflinePWMConfig()
        self.replay, self.device = given, torch.device(device)
        statistics = c.training.standardisation(*given.statistics())
        training = replace(c.training, updates=c.pretraining_updates)
        self.trainers = []
        for i in range(c.members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + 1000 * i)
                model = WorldModel(given.obs.shape[-1], given.action.shape[-1], config=c.model).to(self.device)
            model.set_statistics(*statistics)
            how = training if i == 0 else replace(training, encoder_lr_scale=0.0)
            self.trainers.append(WorldModelTrainer(model, given, how, seed=seed + 1000 * i))
        self.view: FrozenWorldModel | EnsembleDynamics = FrozenWorldModel(self.model)
        self.learner = PWM(self.view, self._starts, c.policy, seed=seed, device=self.device)

    @property
    def model(self) -> WorldModel:
        """The first world model."""
        return self.trainers[0].model

    @property
    def step(self) -> int:
        """Updates so far; those of the world models count from minus their number to 0."""
        left = sum(t.step for t in self.trainers) - self.config.members * self.config.pretraining_updates
        return left if left < 0 else self.learner.step

    def actor(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Act on observations."""
        with torch.no_grad():
            z = self.view.encode(obs)
        return self.learner.actor(z, noise)

    def update(self) -> dict[str, float]:
        """Update a world model while they are being trained, then the policy inside them; returns scalars to log."""
        if self.step >= 0:
            return self.learner.update()
        index = next(i for i, t in enumerate(self.trainers) if t.step < self.config.pretraining_updates)
        trainer = self.trainers[index]
        if index and trainer.step == 0 and self.model.encoder is not None:
            trainer.model.encoder.load_state_dict(self.model.encoder.state_dict())
        metrics = trainer.update()
        if self.step >= 0:
            self._freeze()
        return {f"model_{k}": v for k, v in metrics.items()}

    def _freeze(self) -> None:
        c = self.config
        views = [FrozenWorldModel(t.model, reward_symexp=c.policy.reward_symexp) for t in self.trainers]
        self.view = views[0]
        if c.members > 1:
            obs, action, *_ = self.replay.slices(4096, 1, np.random.default_rng(0))
            usual = EnsembleDynamics(views).disagreement(self.view.encode(obs[0].to(self.device)), action[0].to(self.device))
            self.view = EnsembleDynamics(views, pessimism=c.pessimism, usual=float(usual.detach().mean()))
        self.learner.dynamics = self.view

    def _starts(self, batch: int, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        obs = self.replay.start_observations(batch, rng, initial_share=self.config.initial_share)
        with torch.no_grad():
            return self.view.encode(obs.to(self.device))

    def state_dict(self) -> dict[str, Any]:
        """Return all that a bit-identical continuation needs but the replay."""
        return {"trainers": [t.state_dict() for t in self.trainers], "learner": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        for trainer, saved in zip(self.trainers, state["trainers"], strict=True):
            trainer.load_state_dict(saved)
        if self.step >= 0:
            self._freeze()
        self.learner.load_state_dict(state["learner"])
