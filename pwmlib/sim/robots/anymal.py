"""Anymal: a quadruped with the dimensions and masses of ANYmal B, simplified to a box and capsules."""

from __future__ import annotations

import math

from pwmlib.sim.engine.model import Joint, Link, Material, Model
from pwmlib.sim.engine.scalars import Number, Vector, mul, sub
from pwmlib.sim.engine.shapes import Box, Capsule

from .free_root import FreeRootRules, check_variant, squared, total

__all__ = ["AnymalRules", "anymal_model"]

_LEGS = (("lf", 1, 1), ("lh", -1, 1), ("rf", 1, -1), ("rh", -1, -1))
_POSE = {"lf": (0.03, 0.4, -0.8), "lh": (0.03, -0.4, 0.8), "rf": (-0.03, 0.4, -0.8), "rh": (-0.03, -0.4, 0.8)}


def anymal_model() -> Model:
    """About 31 kg; hip abduction, hip flexion and knee a leg, held near the start pose by springs of 85 N m/rad."""
    links = [Link("base", Joint("free"), None, (Box((0, 0, 0), (0.265, 0.12, 0.09), mass=17.0),))]
    for name, x, y in _LEGS:
        haa, hfe, kfe = _POSE[name]
        common = {"stiffness": 85.0, "damping": 2.0, "armature": 0.006}
        abduction = Joint("hinge", position=(0.277 * x, 0.116 * y, 0), axis=(1, 0, 0), lower=-0.7, upper=0.7, target=haa, **common)
        flexion = Joint("hinge", position=(0.0635 * x, 0.041 * y, 0), axis=(0, 1, 0), lower=-2.0, upper=2.0, target=hfe, **common)
        knee = Joint("hinge", position=(0, 0.109 * y, -0.25), axis=(0, 1, 0), lower=-2.6, upper=2.6, target=kfe, **common)
        hip = Capsule((0, 0, 0), (0.0635 * x, 0.041 * y, 0), 0.05, mass=1.4)
        thigh = Capsule((0, 0.05 * y, 0), (0, 0.1 * y, -0.25), 0.04, mass=1.7)
        shank = Capsule((0, 0, 0), (0.1 * x, -0.02 * y, -0.321), 0.031, mass=0.4)
        links += [
            Link(f"{name}_hip", abduction, "base", (hip,), collides=False),
            Link(f"{name}_thigh", flexion, f"{name}_hip", (thigh,)),
            Link(f"{name}_shank", knee, f"{name}_thigh", (shank,)),
        ]
    return Model("anymal", tuple(links), Material(ke=2e3, kd=5e2, kf=1e2, mu=0.75))


class AnymalRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.01 |a|^2; the released constant is 0.005. R_height = h - 0.25."""

    def __init__(self, variant: str = "paper"):
        released = check_variant(variant) == "released"
        self.action_cost = 0.005 if released else 0.01
        pose = [angle for name, _, _ in _LEGS for angle in _POSE[name]]
        super().__init__(
            anymal_model(), torques=[200.0] * 12, start_height=0.55, start_rotation=(-math.sqrt(0.5), 0, 0, math.sqrt(0.5)),
            start_joints=pose, fall_height=0.25, reward_before=released,
        )  # fmt: skip

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        up, heading = self.orientation(q)
        return total(qd[3], mul(0.1, up), heading, sub(q[1], self.fall_height), mul(-self.action_cost, squared(action)))
