"""The real simulators of MT80 behind one interface, with TD-MPC2's protocol (action repeat 2); imported when first needed."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from pwmlib.errors import ExplainedError

from .registry import Task

__all__ = ["PINS", "DMControl", "Environment", "MetaWorld", "SimulatorMissingError", "make"]

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


def make(task: Task) -> Environment:
    """Make the environment of a task; raises SimulatorMissingError that names the pinned versions."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "disabled")  # who only acts renders nothing; without a screen the default only warns
    return MetaWorld(task) if task.suite == "metaworld" else DMControl(task)


def _clipped(task: Task, action: np.ndarray, dtype: type) -> np.ndarray:
    action = np.asarray(action, dtype)
    if action.shape != (task.action_dim,) or not np.isfinite(action).all():
        raise ValueError(f"{task.name}: an action must be {task.action_dim} finite numbers, got {action}")
    return np.clip(action, -1.0, 1.0)


def _missing(error: Exception) -> SimulatorMissingError:
    return SimulatorMissingError(
        f"{error}. The tasks need the 'tasks' extra with exactly these versions, others break one suite or the other: {PINS}"
    )


class DMControl:
    """A dm_control task has 500 decisions of two control steps, no termination, observation entries in the suite's order."""

    def __init__(self, task: Task):
        try:
            from dm_control import suite
        except Exception as error:  # mujoco's own version clash raises AttributeError
            raise _missing(error) from error
        self.task = task
        with _quiet():
            if task.custom:
                from .dm_control_custom import CUSTOM_TASKS

                self._env = CUSTOM_TASKS[task.name]()
            else:
                self._env = suite.load(task.domain, task.name.split("-", 1)[1].replace("-", "_"), task_kwargs={"random": 0})
        self.physics = self._env.physics
        self.control_timestep: float = self._env.control_timestep()
        """Seconds; a decision takes two of them."""
        spec = self._env.action_spec()
        if spec.shape != (task.action_dim,) or not (np.all(spec.minimum == -1) and np.all(spec.maximum == 1)):
            raise RuntimeError(f"{task.name}: expected {task.action_dim} actions in [-1, 1], the simulator has {spec}")

    def reset(self, seed: int) -> np.ndarray:
        """Start an episode, see `Environment`."""
        self._env.task._random = np.random.RandomState(seed % 2**32)
        return _flat(self._env.reset().observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Take a decision, see `Environment`."""
        action = _clipped(self.task, action, np.float64)
        first, second = self._env.step(action), self._env.step(action)
        return _flat(second.observation), (first.reward or 0.0) + (second.reward or 0.0), False

    def simulation(self) -> tuple[Any, Any]:
        """Give MuJoCo's model and data of this moment."""
        return self.physics.model.ptr, self.physics.data.ptr


def _flat(observation: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(v) for v in observation.values()]).astype(np.float32)


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


class MetaWorld:
    """A MetaWorld v3 task has 100 decisions of two raw steps, an observable goal, goal and object positions drawn at each reset."""

    def __init__(self, task: Task):
        try:
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as environments
        except Exception as error:
            raise _missing(error) from error
        self.task = task
        kind: Any = environments[f"{task.domain}-goal-observable"]  # its constructor has arguments that its declared base lacks
        self._env = kind(seed=0)
        self._env.seeded_rand_vec = True
        self._env._freeze_rand_vec = False
        self.success = False

    def reset(self, seed: int) -> np.ndarray:
        """Start an episode, see `Environment`."""
        self._env.seed(seed % 2**32)
        self.success = False
        return np.asarray(self._env.reset()[0], np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Take a decision, see `Environment`."""
        action = _clipped(self.task, action, np.float32)
        _, first, *_ = self._env.step(action)
        observation, second, _, _, info = self._env.step(action)
        self.success = bool(info["success"])
        return np.asarray(observation, np.float32), float(first) + float(second), self.success

    def simulation(self) -> tuple[Any, Any]:
        """Give MuJoCo's model and data of this moment."""
        return self._env.model, self._env.data

    @cached_property
    def _expert(self) -> Any:
        from metaworld.policies import ENV_POLICY_MAP

        return ENV_POLICY_MAP[self.task.domain]()

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """Return the action of the scripted policy that MetaWorld ships, shape [4], clipped to [-1, 1]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it says that actions beyond [-1, 1] are clipped, at every step
            action = self._expert.get_action(observation.astype(np.float64))
        return np.clip(np.asarray(action, np.float32), -1.0, 1.0)
