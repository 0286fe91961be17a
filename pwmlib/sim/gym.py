"""The environments as Gymnasium environments: a vector environment over the simulator's own batch, and a single one."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from pwmlib.errors import one_of

from .env import DifferentiableEnv
from .render import render_frames

__all__ = ["IDS", "GymEnv", "GymVectorEnv", "spaces"]

IDS = {
    name: f"pwm/{shown}-v0"
    for name, shown in {
        "double_pendulum": "DoublePendulum", "hopper": "Hopper", "ant": "Ant", "anymal": "Anymal", "humanoid": "Humanoid",
        "snu_like": "SNULike",
    }.items()
}  # fmt: skip
"""Name -> id, by which `gymnasium.make` and `gymnasium.make_vec` know an environment once this module is imported."""


def spaces(env: DifferentiableEnv) -> tuple[Box, Box]:
    """Make observation and action space of one environment."""
    observation = Box(-np.inf, np.inf, (env.obs_dim,), np.float32)
    return observation, Box(-1.0, 1.0, (env.action_dim,), np.float32)


class GymVectorEnv(VectorEnv):
    """`num_envs` environments stepped together, numpy in and out; options as in `DifferentiableEnv`.

    An environment that ends is reset in the same step: its last observation is in infos["final_obs"], marked in infos["_final_obs"].
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 60, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, name: str = "hopper", num_envs: int = 64, *, render_mode: str | None = None, **options: Any):
        self.num_envs, self.render_mode = num_envs, one_of(render_mode, (None, "rgb_array"), "render_mode")
        self.env = DifferentiableEnv(name, num_envs, **options)
        self.single_observation_space, self.single_action_space = spaces(self.env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin new episodes, at different ages where options["spread"] is true."""
        super().reset(seed=seed)
        return self.env.reset(seed=seed, spread=bool((options or {}).get("spread", False))).cpu().numpy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one control step everywhere: observations, rewards, terminated, truncated, infos."""
        with torch.no_grad():
            step = self.env.step(torch.as_tensor(np.asarray(actions, np.float32), device=self.env.simulator.device))
        terminated, truncated = step.terminated.cpu().numpy(), step.truncated.cpu().numpy()
        ended, infos = terminated | truncated, {}
        if ended.any():
            infos = {"final_obs": step.final_obs.cpu().numpy(), "_final_obs": ended}
        return step.obs.cpu().numpy(), step.reward.double().cpu().numpy(), terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw each environment, an RGB image each."""
        return None if self.render_mode is None else tuple(render_frames(self.env.model, self.env.state, stride=1))


class GymEnv(gymnasium.Env):
    """A single environment; after an episode has ended, call reset."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 60}

    def __init__(self, name: str = "hopper", *, render_mode: str | None = None, **options: Any):
        self.batch, self.render_mode = GymVectorEnv(name, 1, render_mode=render_mode, **options), render_mode
        self.observation_space, self.action_space = self.batch.single_observation_space, self.batch.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a new episode; there are no options."""
        super().reset(seed=seed)
        return self.batch.reset(seed=seed)[0][0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one control step: observation, reward, terminated, truncated, infos."""
        obs, reward, terminated, truncated, infos = self.batch.step(np.asarray(action)[None])
        return infos.get("final_obs", obs)[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> np.ndarray | None:
        """Draw the environment as an RGB image."""
        pictures = self.batch.render()
        return None if pictures is None else pictures[0]


for _name, _id in IDS.items():
    gymnasium.register(_id, entry_point=GymEnv, vector_entry_point=GymVectorEnv, kwargs={"name": _name})
