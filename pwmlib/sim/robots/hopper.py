"""Hopper: a planar leg of four capsules."""

from __future__ import annotations

import math

from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.scalars import Number, Vector, add, mul, sub

from .free_root import RobotRules, height_reward, squared, total
from .tables import read_model

__all__ = ["HopperRules", "hopper_model"]


def hopper_model() -> Model:
    """Read Hopper's tables: x and height slides and a hinge at the root, then thigh, leg and foot; armature 1 on every joint."""
    return read_model("hopper")


class HopperRules(RobotRules):
    """Three motors of 200 N m; height 0 is standing."""

    action_dim, obs_dim, noise_dim = 3, 11, 12

    def __init__(self, variant: str = "paper"):
        super().__init__(hopper_model(), variant)

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Drive the three hinges below the root."""
        return [0.0, 0.0, 0.0, *(mul(200.0, a) for a in action)], []

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        """Observe q without x, then qd."""
        return [*q[1:], *qd]

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        """Give v_x + R_height + R_angle - 0.1 |a|^2 (Table 2)."""
        height = height_reward(q[1], -0.3, below=-1.0, above=0.3, gain=1.0)
        tilt = mul(q[2], 6 / math.pi)
        return total(qd[0], height, sub(1.0, mul(tilt, tilt)), mul(-0.1, squared(action)))

    def margin(self, q: Vector, qd: Vector) -> Number:
        """Measure how far it is above its fall at height -0.45."""
        return add(q[1], 0.45)

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        """Start standing, each coordinate and rate up to 0.05 off."""
        small = [mul(0.05, n) for n in noise]
        return small[:6], small[6:]
