"""Hopper: a planar leg of four capsules."""

from __future__ import annotations

import math

from pwmlib.sim.engine.model import Joint, Link, Material, Model
from pwmlib.sim.engine.scalars import Number, Vector, add, mul, sub
from pwmlib.sim.engine.shapes import Capsule

from .free_root import check_variant, height_reward, squared, total

__all__ = ["HopperRules", "hopper_model"]

_UPRIGHT = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
"""From the tables' z-up to the simulator's y-up."""


def hopper_model() -> Model:
    """Torso, thigh, leg, foot; x and height slides and a hinge at the root; armature 1 on every joint."""
    root = {"armature": 1.0}
    hinge = {"armature": 1.0, "damping": 2.0, "axis": (0.0, -1.0, 0.0)}
    radians = math.radians
    knee = {"lower": radians(-150), "upper": 0.0}
    return Model(
        "hopper",
        (
            Link("slide_x", Joint("slide", rotation=_UPRIGHT, axis=(1, 0, 0), **root)),
            Link("slide_z", Joint("slide", position=(0, 0, 1.25), axis=(0, 0, 1), **root), "slide_x"),
            Link("torso", Joint("hinge", axis=(0, 1, 0), **root), "slide_z", (Capsule((0, 0, -0.2), (0, 0, 0.2), 0.05),)),
            Link("thigh", Joint("hinge", position=(0, 0, -0.2), **hinge, **knee), "torso", (Capsule((0, 0, -0.45), (0, 0, 0), 0.05),)),
            Link("leg", Joint("hinge", position=(0, 0, -0.45), **hinge, **knee), "thigh", (Capsule((0, 0, -0.5), (0, 0, 0), 0.04),)),
            Link(
                "foot",
                Joint("hinge", position=(0, 0, -0.5), **hinge, lower=radians(-45), upper=radians(45)),
                "leg",
                (Capsule((0.255, 0, 0), (-0.135, 0, 0), 0.06),),
            ),
        ),
        Material(ke=2e4, kd=1e3, kf=1e3, mu=0.9),
        exact_inertia=False,
    )


class HopperRules:
    """Observation 11: q without x, qd. Reward (Table 2): v_x + R_height + R_angle - 0.1 |a|^2. Falls below height -0.45 (0 is standing)."""

    action_dim, obs_dim, noise_dim = 3, 11, 12

    def __init__(self, variant: str = "paper"):
        self.model, self.reward_before = hopper_model(), check_variant(variant) == "released"

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        return [0.0, 0.0, 0.0, *(mul(200.0, a) for a in action)], []

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        return [*q[1:], *qd]

    def reward(self, q: Vector, qd: Vector, action: Vector, next_q: Vector, next_qd: Vector) -> Number:
        if not self.reward_before:
            q, qd = next_q, next_qd
        height = height_reward(q[1], -0.3, below=-1.0, above=0.3, gain=1.0)
        tilt = mul(q[2], 6 / math.pi)
        return total(qd[0], height, sub(1.0, mul(tilt, tilt)), mul(-0.1, squared(action)))

    def margin(self, q: Vector, qd: Vector) -> Number:
        return add(q[1], 0.45)

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        small = [mul(0.05, n) for n in noise]
        return small[:6], small[6:]
