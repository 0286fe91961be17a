"""Humanoid: 21 hinges, 40.8 kg."""

from __future__ import annotations

import math

from pwmlib.sim.engine.model import Joint, Link, Material, Model
from pwmlib.sim.engine.scalars import Number, Vector, mul
from pwmlib.sim.engine.shapes import Capsule, Sphere

from .ant import UPRIGHT
from .free_root import FreeRootRules, check_variant, height_reward, squared, total

__all__ = ["HEADINGS", "HumanoidRules", "humanoid_model"]

HEADINGS = {"world_x": None, "target": 200.0}
"""What the torso should face: the world's x axis, or a point so many metres along it from the start."""

_MOTORS = [200, 200, 200, *[200, 200, 600, 400, 100, 100] * 2, *[100, 100, 200] * 2]


def _hinge(position, axis, limits, stiffness, damping, armature) -> Joint:
    low, high = (math.radians(x) for x in limits)
    return Joint(
        "hinge", position=position, axis=axis, lower=low, upper=high, stiffness=stiffness, damping=damping, armature=armature
    )  # fmt: skip


def _leg(side: str, s: int) -> list[Link]:
    """s: -1 right, 1 left (y points left in the tables)."""
    o = (0.0, 0.0, 0.0)
    thigh = Capsule(o, (0, -0.01 * s, -0.34), 0.06)
    feet = [Capsule((-0.07, y0 * s, -0.08), (0.14, y1 * s, -0.08), 0.027) for y0, y1 in ((0.02, 0.04), (0.0, -0.02))]
    mirror = -s
    return [
        Link(f"{side}_hip_x", _hinge((0, 0.1 * s, -0.14), (mirror, 0, 0), (-25, 5), 10, 5, 0.01), "pelvis"),
        Link(f"{side}_hip_z", _hinge(o, (0, 0, mirror), (-60, 35), 10, 5, 0.01), f"{side}_hip_x"),
        Link(f"{side}_thigh", _hinge(o, (0, 1, 0), (-80, 20), 20, 5, 0.01), f"{side}_hip_z", (thigh,)),
        Link(
            f"{side}_shin",
            _hinge((0, -0.01 * s, -0.383), (0, -1, 0), (-160, 2), 5, 0.1, 0.007),
            f"{side}_thigh",
            (Capsule((0, 0, -0.02), (0, 0, -0.32), 0.049),),
        ),
        Link(f"{side}_ankle_y", _hinge((0, 0, -0.33), (0, 1, 0), (-50, 50), 2, 1, 0.006), f"{side}_shin"),
        Link(f"{side}_foot", _hinge(o, (1, 0, 0.5), (-50, 50), 2, 1, 0.006), f"{side}_ankle_y", tuple(feet)),
    ]


def _arm(side: str, s: int) -> list[Link]:
    lower = (Capsule((0.01, -0.01 * s, 0.01), (0.17, -0.17 * s, 0.17), 0.031), Sphere((0.18, -0.18 * s, 0.18), 0.04))
    first = (2, 1, 1) if s < 0 else (-2, 1, -1)
    second = (0, -1, 1) if s < 0 else (0, -1, -1)
    return [
        Link(f"{side}_shoulder", _hinge((0, 0.17 * s, 0.06), first, (-60, 60), 10, 5, 0.01), "torso"),
        Link(
            f"{side}_upper_arm",
            _hinge((0, 0, 0), second, (-60, 60), 10, 5, 0.01),
            f"{side}_shoulder",
            (Capsule((0, 0, 0), (0.16, 0.16 * s, -0.16), 0.04),),
        ),
        Link(f"{side}_lower_arm", _hinge((0.18, 0.18 * s, -0.18), second, (-90, 50), 2, 1, 0.006), f"{side}_upper_arm", lower),
    ]


def humanoid_model() -> Model:
    """Torso with head, waist and pelvis, two legs of six hinges, two arms of three."""
    torso = (
        Capsule((0, -0.07, 0), (0, 0.07, 0), 0.07),
        Capsule((-0.01, -0.06, -0.12), (-0.01, 0.06, -0.12), 0.06),
        Sphere((0, 0, 0.19), 0.09),
    )
    links = [
        Link("torso", Joint("free"), None, torso),
        Link("abdomen_z", _hinge((-0.01, 0, -0.195), (0, 0, 1), (-45, 45), 20, 5, 0.02), "torso"),
        Link(
            "waist",
            _hinge((0, 0, 0), (0, 1, 0), (-75, 30), 20, 5, 0.01),
            "abdomen_z",
            (Capsule((0, -0.06, -0.065), (0, 0.06, -0.065), 0.06),),
        ),
        Link(
            "pelvis",
            _hinge((0, 0, -0.13), (1, 0, 0), (-35, 35), 10, 5, 0.01),
            "waist",
            (Capsule((-0.02, -0.07, -0.1), (-0.02, 0.07, -0.1), 0.09),),
        ),
        *_leg("right", -1),
        *_leg("left", 1),
        *_arm("right", -1),
        *_arm("left", 1),
    ]
    return Model("humanoid", tuple(links), Material(ke=2e4, kd=5e3, kf=1e3, mu=0.75), exact_inertia=False)


class HumanoidRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.002 |a|^2; R_height is 10 d, or -200 d^2 below 0.84 m.

    heading: one of `HEADINGS`. The released environment faces a point 200 m ahead, which differs once the robot has left the x axis
    sideways; the paper gives no point, so its variant faces along x.
    """

    def __init__(self, variant: str = "paper", *, heading: str | None = None):
        heading = heading or ("target" if check_variant(variant) == "released" else "world_x")
        if heading not in HEADINGS:
            raise ValueError(f"HumanoidRules: heading must be one of {sorted(HEADINGS)}, got {heading!r}")
        super().__init__(
            humanoid_model(), torques=[0.35 * m for m in _MOTORS], start_height=1.35, start_rotation=UPRIGHT,
            start_joints=[0.0] * 21, fall_height=0.74, reward_before=variant == "released", target=HEADINGS[heading],
        )  # fmt: skip

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        up, heading = self.orientation(q)
        height = height_reward(q[1], 0.84, below=-1.0, above=0.1, gain=10.0)
        return total(qd[3], mul(0.1, up), heading, height, mul(-0.002, squared(action)))
