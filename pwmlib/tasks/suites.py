"""Real simulators behind one interface, with TD-MPC2's protocol (action repeat 2). Simulators are imported when first needed."""

from __future__ import annotations

import os

from pwmlib.tasks.environment import Environment

from .registry import Task

__all__ = ["make"]


def make(task: Task) -> Environment:
    """Make the environment of a task; raises SimulatorMissingError that names the pinned versions."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "disabled")  # who only acts renders nothing; without a screen the default only warns
    if task.suite == "metaworld":
        from .metaworld import MetaWorld as Suite
    else:
        from .dm_control import DMControl as Suite
    return Suite(task)
