"""Real simulators behind one interface, with TD-MPC2's protocol (action repeat 2). Simulators are imported when first needed."""

from __future__ import annotations

import os
from ctypes.util import find_library

from pwmlib.tasks.environment import Environment

from .registry import Task

__all__ = ["make"]


def make(task: Task) -> Environment:
    """Make the environment of a task; raises SimulatorMissingError that names the pinned versions."""
    if not os.environ.get("DISPLAY"):
        # MuJoCo reads it when it is imported; without a screen its default only warns.
        os.environ.setdefault("MUJOCO_GL", "osmesa" if find_library("OSMesa") else "disabled")
    if task.suite == "metaworld":
        from .metaworld import MetaWorld as Suite
    else:
        from .dm_control import DMControl as Suite
    return Suite(task)
