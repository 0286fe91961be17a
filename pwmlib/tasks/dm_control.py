"""The dm_control tasks of MT30."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .environment import clipped, missing
from .registry import Task

__all__ = ["DMControl"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning, at every compilation, of a deprecated attribute in dm_control's own cheetah."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class DMControl:
    """A dm_control task has 500 decisions of two control steps, no termination, observation entries in the suite's order."""

    def __init__(self, task: Task):
        try:
            from dm_control import suite
        except Exception as error:  # mujoco's own version clash raises AttributeError
            raise missing(error) from error
        self.task = task
        with _quiet():
            if task.custom:
                from .dm_control_custom import load_custom

                self._env = load_custom(task.name)
            else:
                self._env = suite.load(task.domain, task.name.split("-", 1)[1].replace("-", "_"), task_kwargs={"random": 0})
        spec = self._env.action_spec()
        if spec.shape != (task.action_dim,) or not (np.all(spec.minimum == -1) and np.all(spec.maximum == 1)):
            raise RuntimeError(f"{task.name}: expected {task.action_dim} actions in [-1, 1], the simulator has {spec}")

    def reset(self, seed: int) -> np.ndarray:
        """Start an episode, see `Environment`."""
        self._env.task._random = np.random.RandomState(seed % 2**32)
        return self._flat(self._env.reset().observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Take a decision, see `Environment`."""
        action = clipped(self.task, action, np.float64)
        reward = 0.0
        for _ in range(2):
            time_step = self._env.step(action)
            reward += time_step.reward or 0.0
        return self._flat(time_step.observation), reward, False

    @property
    def physics(self):
        """dm_control's Physics, the simulator's state."""
        return self._env.physics

    def simulation(self) -> tuple[Any, Any]:
        """Give MuJoCo's model and data of this moment."""
        return self.physics.model.ptr, self.physics.data.ptr

    @property
    def control_timestep(self) -> float:
        """A control step takes so many seconds, a decision two of them."""
        return self._env.control_timestep()

    @staticmethod
    def _flat(observation: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([np.ravel(v) for v in observation.values()]).astype(np.float32)
