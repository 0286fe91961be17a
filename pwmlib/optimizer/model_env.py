"""A world model in the place of a simulator's gradients: environments whose states are latents."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pwmlib.data.replay import Replay
from pwmlib.errors import one_of
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel
from pwmlib.sim.engine.bridge import Step
from pwmlib.sim.env import DifferentiableEnv

from .imagination import Rollout

__all__ = ["Imagination", "ModelEnv"]

Imagination = Literal["reencode", "open_loop"]


class ModelEnv:
    """Real environments that the world model differentiates; it is called like `DifferentiableEnv`.

    imagination: "reencode": at each step the latent has the value E(s_t) of the real observation and the gradient of the model's
    prediction. "open_loop": the model runs on its own from E(s_0) for the whole window (released code); the real environments follow
    the same actions and say when an episode ends.
    real_reward: rewards have their real value and the model's gradient; else both are the model's.
    reward_symexp: a two-hot head's rewards in their own units; False leaves them in symlog space (the paper).
    replay: where the real steps of every window are kept that `keep` was called for.
    """

    def __init__(
        self, env: DifferentiableEnv, model: WorldModel, replay: Replay, *, imagination: Imagination = "reencode",
        real_reward: bool = False, reward_symexp: bool = True,
    ):  # fmt: skip
        self.imagination = one_of(imagination, get_args(Imagination), "ModelEnv: imagination")
        if (model.obs_dim, model.action_dim) != (env.obs_dim, env.action_dim):
            sizes = (env.obs_dim, env.action_dim)
            raise ValueError(f"ModelEnv: {env.name} has {sizes} observations and actions, the model {model.obs_dim, model.action_dim}")
        if real_reward and not reward_symexp:
            raise ValueError("ModelEnv: real_reward=True gives rewards in their own units; reward_symexp must be True with it")
        self.env, self.model, self.replay, self.real_reward, self.reward_symexp = env, model, replay, real_reward, reward_symexp
        self._window: list[tuple[Tensor, ...]] = []
        self.count, self.obs_dim, self.action_dim, self.simulator = env.count, model.latent_dim, env.action_dim, env.simulator
        self.refresh()

    def refresh(self) -> None:
        """Take over the model's present weights, after every training of it."""
        self.view = FrozenWorldModel(self.model, reward_symexp=self.reward_symexp)

    def encode(self, obs: Tensor) -> Tensor:
        """Encode observations, z = E(s), without gradient."""
        with torch.no_grad():
            return self.view.encode(obs)

    def reset(self, *, seed: int | None = None, spread: bool = False) -> Tensor:
        """Begin new episodes everywhere; returns latents [count, latent_dim]."""
        self.env.reset(seed=seed, spread=spread)
        return self.detach()

    def detach(self) -> Tensor:
        """Forget the graph and whatever the model has drifted to; returns E of the real observations."""
        self._latent = self.encode(self.env.detach())
        return self._latent

    def step(self, action: Tensor) -> Step:
        """Take one control step of the real environments, with the model's gradient."""
        before = self.env.detach()
        with torch.no_grad():
            real = self.env.step(action.detach())
        self._window.append((before, action.detach(), real.reward, real.final_obs, real.terminated, real.truncated))
        predicted, reward = self.view.advance(self._latent, action), self.view.reward(self._latent, action)
        if self.real_reward:
            reward = reward + (real.reward - reward).detach()
        final = predicted
        if self.imagination == "reencode":
            final = predicted + (self.encode(real.final_obs) - predicted).detach()
        ended = (real.terminated | real.truncated)[:, None]
        self._latent = torch.where(ended, self.encode(real.obs), final)
        return Step(real.state, self._latent, final, reward, real.terminated, real.truncated)

    def keep(self, roll: Rollout | None = None) -> None:
        """Add the real steps since the last call to the replay; `PWM` calls it as `record` when an update has succeeded."""
        for row in self._window:
            self.replay.add(*row)
        self._window.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return where the real environments are."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the real environments there; steps that were not kept are forgotten."""
        self._window.clear()
        self.env.load_state_dict(state)
