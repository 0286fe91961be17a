"""PWM on one task without a real step of its own: a world model of a given replay, frozen, and Algorithm 1 inside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import PWMConfig, WorldModelTraining
from ..frozen import FrozenWorldModel
from ..pretrain import WorldModelTrainer
from ..pwm import PolicyLearner
from ..world_model import WorldModel, WorldModelConfig
from .pwm_online import OnlinePWMConfig
from .replay import Replay

__all__ = ["OfflinePWM", "OfflinePWMConfig"]


@dataclass(frozen=True)
class OfflinePWMConfig:
    """One learner. The model has a termination head: a policy that falls must not go on earning rewards in imagination."""

    model: WorldModelConfig = replace(OnlinePWMConfig().model, termination=True)
    training: WorldModelTraining = OnlinePWMConfig().training
    """Its learning rate falls over `pretraining_updates`; `updates` of it is not used."""
    pretraining_updates: int = 6000
    policy: PWMConfig = PWMConfig(
        updates=800, actor_lr=1e-3, critic_lr=3e-3, critic_hidden=(200, 100), critics=2, critic_value="min", reward_symexp=True,
        continued=0.9,
    )  # fmt: skip
    initial_share: float = 0.3
    """Of imagined trajectories that begin as episodes do, the others at any state of the replay."""


class OfflinePWM:
    """First updates of the world model on the replay, then of the policy. Same calls as `OnlinePWM`."""

    def __init__(self, given: Replay, config: OfflinePWMConfig | None = None, *, seed: int = 0, device: str | torch.device = "cpu"):
        c = self.config = config or OfflinePWMConfig()
        self.replay, self.device = given, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = WorldModel(given.obs.shape[-1], given.action.shape[-1], config=c.model).to(self.device)
        self.trainer = WorldModelTrainer(self.model, given, replace(c.training, updates=c.pretraining_updates), seed=seed)
        mean, std, *reward = given.statistics()
        self.model.set_statistics(mean, std, *(reward if c.training.loss.normalise_reward else (0.0, 1.0)))
        self.learner = PolicyLearner(self._frozen(), self._starts, c.policy, seed=seed, device=self.device)

    @property
    def step(self) -> int:
        """Updates so far: those of the world model count from minus `pretraining_updates` to 0."""
        return (
            self.learner.step
            if self.trainer.step >= self.config.pretraining_updates
            else self.trainer.step - self.config.pretraining_updates
        )

    def actor(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Policy on observations."""
        with torch.no_grad():
            z = self.learner.dynamics.encode(obs)
        return self.learner.actor(z, noise)

    def update(self) -> dict[str, float]:
        """One update of the world model while it is being trained, then one of the policy inside it."""
        if self.trainer.step < self.config.pretraining_updates:
            metrics = self.trainer.update()
            if self.trainer.step == self.config.pretraining_updates:
                self.learner.dynamics = self._frozen()
            return {f"model_{k}": v for k, v in metrics.items()}
        return self.learner.update()

    def _frozen(self) -> FrozenWorldModel:
        return FrozenWorldModel(self.model, reward_symexp=self.config.policy.reward_symexp)

    def _starts(self, batch: int, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        obs = self.replay.start_observations(batch, rng, initial_share=self.config.initial_share)
        with torch.no_grad():
            return self.learner.dynamics.encode(obs.to(self.device))

    def state_dict(self) -> dict[str, Any]:
        return {"trainer": self.trainer.state_dict(), "learner": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.learner.dynamics = self._frozen()
        self.learner.load_state_dict(state["learner"])
