"""Rewards to plan with, for many simulated states at once: dm_control's own, plus a slope where those are flat.

They only steer the planner that makes data (`pwmlib.tasks.planning`); recorded rewards are the tasks' own.
"""

from collections.abc import Callable, Mapping

import numpy as np
from dm_control.utils.rewards import tolerance

from .dm_control_custom import jumping, raised, reached, spinning, standing, walking

__all__ = ["EXTRA_SENSORS", "PLANNING_REWARDS"]

Sensors = Mapping[str, np.ndarray]
"""Sensor name -> [..., size]; also "qpos" and "qvel"."""

EXTRA_SENSORS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "walker": (("framepos", "xbody", "torso"), ("framezaxis", "xbody", "torso")),
    "cheetah": tuple(("framepos", "xbody", name) for name in ("torso", "bfoot", "ffoot")),
    "reacher": (("framepos", "geom", "finger"), ("framepos", "geom", "target")),
    "acrobot": (("framepos", "site", "tip"), ("framepos", "site", "target")),
    "ball_in_cup": (("framepos", "site", "target"), ("framepos", "xbody", "ball")),
    "fish": (("framepos", "geom", "mouth"), ("framepos", "geom", "target"), ("framezaxis", "xbody", "torso")),
    "hopper": (("framepos", "body", "torso"), ("framepos", "body", "foot")),
}
"""Sensors that a planning model needs beyond its XML's, by domain: (kind, object type, object)."""


def _walker(name: str, s: Sensors) -> np.ndarray:
    height, upright = s["framepos torso"][..., 2], s["framezaxis torso"][..., 2]
    if name == "walker-stand":
        return standing(height, upright)
    velocity = s["torso_subtreelinvel"][..., 0] * (-1 if "backwards" in name else 1)
    return walking(height, upright, velocity, 8 if "run" in name else 1)


def _cheetah(name: str, s: Sensors) -> np.ndarray:
    velocity = s["torso_subtreelinvel"][..., 0]
    torso, back, front = (s[f"framepos {body}"][..., 2] for body in ("torso", "bfoot", "ffoot"))
    if name == "cheetah-jump":
        return jumping(torso, (back, front), velocity)
    if name in ("cheetah-run-front", "cheetah-run-back"):
        foot = back if name.endswith("front") else front
        return raised(foot, torso) * (5 * np.clip(velocity / 6, -0.1, 1) + 1) / 6
    return -velocity / 8 if name.endswith("backwards") else velocity / 10


def _reacher(name: str, s: Sensors) -> np.ndarray:
    distance = np.linalg.norm((s["framepos target"] - s["framepos finger"])[..., :2], axis=-1)
    radii = 0.01 + (0.015 if name.endswith("hard") else 0.05)
    return (distance <= radii) - 4 * distance


def _acrobot(name: str, s: Sensors) -> np.ndarray:
    distance = np.linalg.norm(s["framepos target"] - s["framepos tip"], axis=-1)
    return tolerance(distance, (0, 0.2), 1) + 0.2 * (1 - distance / 4)


def _pendulum(name: str, s: Sensors) -> np.ndarray:
    angle, rate = s["qpos"][..., 0], s["qvel"][..., 0]
    if name == "pendulum-spin":
        return np.minimum(np.abs(rate) / 9, 1)
    upright = np.cos(angle)
    return upright - 0.02 * rate**2 * (upright > 0.5)


def _cartpole(name: str, s: Sensors) -> np.ndarray:
    cosine, x, rate = np.cos(s["qpos"][..., 1]), s["qpos"][..., 0], s["qvel"][..., 1]
    centred, slow = (1 + tolerance(x, margin=2)) / 2, (1 + tolerance(rate, margin=5)) / 2
    return (cosine + 1) / 2 * slow * centred - 0.1 * np.abs(x)


def _ball_in_cup(name: str, s: Sensors) -> np.ndarray:
    away = (s["framepos ball"] - s["framepos target"])[..., [0, 2]]
    inside = (np.abs(away) < np.array([0.05, 0.025])).all(-1)
    if name == "cup-spin":
        speed = np.linalg.norm(s["qvel"][..., 2:4], axis=-1)
        return spinning(inside, np.linalg.norm(away, axis=-1), speed)
    above = np.clip(away[..., 1], -0.4, 0.06)
    return np.where(inside, 1.0, 0.8 * above - 0.5 * np.abs(away[..., 0]) - 0.1)


def _finger(name: str, s: Sensors) -> np.ndarray:
    if name == "finger-spin":
        rate = -s["hinge_velocity"][..., 0]
        return (rate >= 15) + 0.5 * np.clip(rate / 15, -0.2, 1)
    distance = np.linalg.norm((s["target"] - s["tip"])[..., [0, 2]], axis=-1)
    return (distance <= (0.03 if name.endswith("hard") else 0.07)) - 2 * distance


def _fish(name: str, s: Sensors) -> np.ndarray:
    distance = np.linalg.norm(s["framepos target"] - s["framepos mouth"], axis=-1)
    upright = 0.5 * (s["framezaxis torso"][..., 2] + 1)
    return (7 * tolerance(distance, (0, 0.06), 0.12) + upright) / 8 - distance


def _hopper(name: str, s: Sensors) -> np.ndarray:
    height = (s["framepos torso"] - s["framepos foot"])[..., 2]
    standing = reached(height, 0.6, 0.5, sigmoid="linear")
    if name == "hopper-stand":
        return standing + (height > 0.6)
    velocity = s["torso_subtreelinvel"][..., 0] * (-1 if "backwards" in name else 1)
    return standing * (0.3 + np.clip(velocity / 2, -0.5, 1.0)) + 0.2 * (height > 0.6)


PLANNING_REWARDS: dict[str, Callable[[str, Sensors], np.ndarray]] = {
    "walker": _walker, "cheetah": _cheetah, "reacher": _reacher, "acrobot": _acrobot, "pendulum": _pendulum, "cartpole": _cartpole,
    "ball_in_cup": _ball_in_cup, "finger": _finger, "fish": _fish, "hopper": _hopper,
}  # fmt: skip
"""Domain -> reward of every state, [...], from the name of a dm_control task of MT30 and its sensors."""
