"""MetaWorld v3 tasks of MT80, and their scripted experts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .environment import clipped, missing
from .registry import Task

if TYPE_CHECKING:
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

__all__ = ["MetaWorld"]


class MetaWorld:
    """A MetaWorld task has 100 decisions of two raw steps, an observable goal, goal and object positions drawn at each reset."""

    def __init__(self, task: Task):
        try:
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as environments
        except Exception as error:
            raise missing(error) from error
        self.task = task
        self._env = _seeded(environments[f"{task.domain}-goal-observable"])
        self._env.seeded_rand_vec = True
        self._env._freeze_rand_vec = False
        self.success = False
        self._expert = None

    def reset(self, seed: int) -> np.ndarray:
        """Start an episode, see `Environment`."""
        self._env.seed(seed % 2**32)
        self.success = False
        observation, _ = self._env.reset()
        return np.asarray(observation, np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Take a decision, see `Environment`."""
        action = clipped(self.task, action, np.float32)
        reward, info = 0.0, {}
        for _ in range(2):
            observation, r, _, _, info = self._env.step(action)
            reward += float(r)
        self.success = bool(info["success"])
        return np.asarray(observation, np.float32), reward, self.success

    def simulation(self) -> tuple[Any, Any]:
        """Give MuJoCo's model and data of this moment."""
        return self._env.model, self._env.data

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """Return the action of the scripted policy that MetaWorld ships, shape [4], clipped to [-1, 1]."""
        if self._expert is None:
            from metaworld.policies import ENV_POLICY_MAP

            self._expert = ENV_POLICY_MAP[self.task.domain]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it says that actions beyond [-1, 1] are clipped, at every step
            action = self._expert.get_action(observation.astype(np.float64))
        return np.clip(np.asarray(action, np.float32), -1.0, 1.0)


def _seeded(kind: Callable[..., SawyerXYZEnv]) -> SawyerXYZEnv:
    """An environment of that class, whose constructor has arguments that its declared base lacks."""
    return kind(seed=0)
