"""What every task gives: the environment protocol of the two suites, and what is said where a simulator is missing."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pwmlib.errors import ExplainedError
from pwmlib.tasks.registry import Task

__all__ = ["PINS", "Environment", "SimulatorMissingError", "clipped", "missing"]

PINS = "mujoco==3.16.0 dm_control==1.0.49 metaworld==3.0.0"


class SimulatorMissingError(ExplainedError, ImportError):
    """A simulator is not installed, or not in a version that works with the others."""


class Environment(Protocol):
    """An environment is one task, unpadded: observations and actions have the task's own sizes."""

    task: Task

    def reset(self, seed: int) -> np.ndarray:
        """Start an episode that depends on the seed alone. Returns the observation, float32 [obs_dim]."""
        ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Repeat the action [action_dim], each entry in [-1, 1], for two control steps.

        Returns (observation float32 [obs_dim], summed reward, success now). Success is always False in dm_control.
        """
        ...

    def simulation(self) -> tuple[Any, Any]:
        """Give MuJoCo's model and data of this moment, for rendering; its compiled classes have no types."""
        ...


def clipped(task: Task, action: np.ndarray, dtype: type) -> np.ndarray:
    """Clip the action's entries to [-1, 1]; raises ValueError for another shape, and for an entry that is not finite."""
    action = np.asarray(action, dtype)
    if action.shape != (task.action_dim,) or not np.isfinite(action).all():
        raise ValueError(f"{task.name}: an action must be {task.action_dim} finite numbers, got {action}")
    return np.clip(action, -1.0, 1.0)


def missing(error: Exception) -> SimulatorMissingError:
    """Make the error to raise when a simulator cannot be imported."""
    return SimulatorMissingError(
        f"{error}. The tasks need the 'tasks' extra with exactly these versions, others break one suite or the other: {PINS}"
    )
