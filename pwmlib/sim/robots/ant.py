"""Ant: a ball with four legs of two hinges."""

from __future__ import annotations

import math

from pwmlib.sim.engine.model import Joint, Link, Material, Model
from pwmlib.sim.engine.scalars import Number, Vector, mul, sub
from pwmlib.sim.engine.shapes import Capsule, Sphere

from .free_root import FreeRootRules, check_variant, squared, total

__all__ = ["UPRIGHT", "AntRules", "ant_model"]

UPRIGHT = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
"""Start rotation of the models whose tables are z-up."""


def ant_model() -> Model:
    """182 kg: the tables' density of 1000 kg/m^3, as in the published runs."""
    legs = (("front_left", 1, 1), ("front_right", -1, 1), ("back_right", -1, -1), ("back_left", 1, -1))
    hips = [Capsule((0, 0, 0), (0.2 * x, 0.2 * y, 0), 0.08) for _, x, y in legs]
    links = [Link("torso", Joint("free"), None, (Sphere((0, 0, 0), 0.25), *hips))]
    common = {"armature": 0.05, "damping": 1.0}
    for name, x, y in legs:
        hip = Joint("hinge", position=(0.2 * x, 0.2 * y, 0), axis=(0, 0, 1), lower=math.radians(-40), upper=math.radians(40), **common)
        links.append(Link(f"{name}_leg", hip, "torso", (Capsule((0, 0, 0), (0.2 * x, 0.2 * y, 0), 0.08),)))
        sign = y if x * y > 0 else -y
        low, high = (30, 100) if sign > 0 else (-100, -30)
        axis = (-1, 1, 0) if x * y > 0 else (1, 1, 0)
        ankle = Joint("hinge", position=(0.2 * x, 0.2 * y, 0), axis=axis, lower=math.radians(low), upper=math.radians(high), **common)
        links.append(Link(f"{name}_foot", ankle, f"{name}_leg", (Capsule((0, 0, 0), (0.4 * x, 0.4 * y, 0), 0.08),)))
    return Model("ant", tuple(links), Material(ke=4e4, kd=1e4, kf=3e3, mu=0.75), exact_inertia=False)


class AntRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.01 |a|^2; the released constant is 0. R_height = h - 0.27."""

    def __init__(self, variant: str = "paper"):
        released = check_variant(variant) == "released"
        self.action_cost = 0.0 if released else 0.01
        super().__init__(
            ant_model(), torques=[200.0] * 8, start_height=0.75, start_rotation=UPRIGHT,
            start_joints=(0, 1, 0, -1, 0, -1, 0, 1), fall_height=0.27, reward_before=released,
        )  # fmt: skip

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        up, heading = self.orientation(q)
        return total(qd[3], mul(0.1, up), heading, sub(q[1], self.fall_height), mul(-self.action_cost, squared(action)))
