"""Real simulators behind one interface, with TD-MPC2's protocol (action repeat 2). Simulators are imported when first needed."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from ..errors import ExplainedError
from .registry import Task

__all__ = ["Environment", "SimulatorMissingError", "make"]

PINS = "mujoco==3.16.0 dm_control==1.0.49 metaworld==3.0.0"


class SimulatorMissingError(ExplainedError, ImportError):
    """A simulator is not installed, or not in a version that works with the others."""


class Environment(Protocol):
    """One task, unpadded: observations and actions have the task's own sizes."""

    task: Task

    def reset(self, seed: int) -> np.ndarray:
        """Start an episode that depends on the seed alone. Returns the observation, float32 [obs_dim]."""
        ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Repeat the action [action_dim], each entry in [-1, 1], for two control steps.

        Returns (observation float32 [obs_dim], summed reward, success now). Success is always False in dm_control.
        """
        ...

    def simulation(self) -> tuple[object, object]:
        """MuJoCo's model and data of this moment, for rendering."""
        ...


def make(task: Task) -> Environment:
    """The environment of a task. Raises SimulatorMissingError naming the pinned versions."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "disabled")  # nothing here renders; without a screen the default only warns
    if task.suite == "metaworld":
        from .metaworld import MetaWorld as Suite
    else:
        from .dm_control import DMControl as Suite
    return Suite(task)


def clipped(task: Task, action: np.ndarray, dtype: type) -> np.ndarray:
    """The action with its entries in [-1, 1]. Raises ValueError for another shape, and for an entry that is not finite."""
    action = np.asarray(action, dtype)
    if action.shape != (task.action_dim,) or not np.isfinite(action).all():
        raise ValueError(f"{task.name}: an action must be {task.action_dim} finite numbers, got {action}")
    return np.clip(action, -1.0, 1.0)


def missing(error: Exception) -> SimulatorMissingError:
    """The error to raise when a simulator cannot be imported."""
    return SimulatorMissingError(
        f"{error}. The tasks need the 'tasks' extra with exactly these versions, others break one suite or the other: {PINS}"
    )
