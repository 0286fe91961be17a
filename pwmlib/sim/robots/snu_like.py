"""SNU-like humanoid: pelvis and legs driven by 152 lines of muscle, in the anatomical groups of the published model.

The published attachment points are under a non-commercial licence and are not used: the coordinates below were placed by hand from
general anatomy. So this robot has the published sizes (observation 53, action 152, 37 kg) but rewards are NOT comparable with the
paper's SNU Humanoid, and it is called "SNU-like" everywhere.

Frames: x forward, y up, z to the right. Origins: pelvis at its centre, femur at the hip, tibia at the knee, talus at the ankle, the toe
parts (big toe side and little toe side) at their hinges. Points are written for the right leg; the left one has z turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pwmlib.sim.engine.model import Joint, Link, Material, Model, Muscle
from pwmlib.sim.engine.scalars import Number, Vector, add, mul, select_negative
from pwmlib.sim.engine.shapes import Box

from .free_root import FreeRootRules, check_variant, height_reward, squared, total
from .snu_muscles import GROUPS

__all__ = ["SNULikeRules", "snu_like_model"]

_STRENGTH = 0.36
"""Fraction of the maximum isometric force that full activation gives."""


def _joint(kind: str, mass: float, position: Sequence[float], limits: tuple[float, float] | None = None) -> Joint:
    low, high = limits or (None, None)
    return Joint(
        kind, position=tuple(position), axis=(0, 0, -1) if kind == "hinge" else (0, 0, 0), lower=low, upper=high,
        stiffness=5.0 * math.sqrt(mass / 15), damping=2.0, armature=0.05, limit_stiffness=1e3 * mass / 15, limit_damping=10 * mass / 15,
    )  # fmt: skip


def _leg(side: str, s: int) -> list[Link]:
    """Femur (ball), tibia (hinge 0 to 2.3 rad), talus (ball), two toe parts (hinge +-0.6 rad)."""
    return [
        Link(f"{side}_femur", _joint("ball", 7, (0, -0.06, 0.09 * s)), "pelvis", (Box((0, -0.2, 0), (0.06, 0.17, 0.055), mass=7.0),)),
        Link(
            f"{side}_tibia", _joint("hinge", 3, (0, -0.42, 0), (0.0, 2.3)), f"{side}_femur",
            (Box((0, -0.2, 0), (0.045, 0.17, 0.04), mass=3.0),),
        ),
        Link(
            f"{side}_talus", _joint("ball", 0.6, (0, -0.4, 0)), f"{side}_tibia",
            (Box((0.02, -0.045, 0), (0.08, 0.025, 0.035), mass=0.6),),
        ),
        Link(
            f"{side}_big_toe", _joint("hinge", 0.2, (0.1, -0.05, -0.02 * s), (-0.6, 0.6)), f"{side}_talus",
            (Box((0.04, -0.005, 0), (0.04, 0.015, 0.018), mass=0.2),),
        ),
        Link(
            f"{side}_small_toes", _joint("hinge", 0.2, (0.1, -0.05, 0.02 * s), (-0.6, 0.6)), f"{side}_talus",
            (Box((0.03, -0.005, 0), (0.03, 0.015, 0.018), mass=0.2),),
        ),
    ]  # fmt: skip


def _muscles(side: str, s: int) -> list[Muscle]:
    muscles = []
    for name, force, spread, paths in GROUPS:
        strands = len(spread)
        for k, (dx, dy, dz) in enumerate(spread):
            waypoints = []
            for i, (link, (x, y, z)) in enumerate(paths):
                fan = 1.0 if i == 0 else 0.4
                full = "pelvis" if link == "pelvis" else f"{side}_{link}"
                waypoints.append((full, (x + fan * dx, y + fan * dy, (z + fan * dz) * s)))
            label = f"{side}_{name}" + (f"_{k + 1}" if strands > 1 else "")
            muscles.append(Muscle(label, _STRENGTH * force, tuple(waypoints)))
    return muscles


def snu_like_model() -> Model:
    """11 links, 29 coordinates, 24 velocities, 88 corner contacts, 152 muscles."""
    pelvis = Link("pelvis", Joint("free"), None, (Box((0, 0.02, 0), (0.08, 0.1, 0.13), mass=15.0),))
    links = (pelvis, *_leg("right", 1), *_leg("left", -1))
    return Model("snu_like", links, Material(ke=5e3, kd=2e3, kf=1e3, mu=0.5), (*_muscles("right", 1), *_muscles("left", -1)))


class SNULikeRules(FreeRootRules):
    """152 muscle activations a in [-1, 1], mapped to 0.5 a + 0.5: muscles pull. The released environment leaves the mapping out, so
    its muscles can push.

    Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.002 |a|^2. Released: no R_height, and -0.001 sum |a|.
    """

    observes_action = False

    def __init__(self, variant: str = "paper"):
        self.released = check_variant(variant) == "released"
        model = snu_like_model()
        super().__init__(
            model, torques=[0.0] * len(model.muscles), start_height=1.0, start_rotation=(0, 0, 0, 1),
            start_joints=[*(0, 0, 0, 1), 0.0, *(0, 0, 0, 1), 0.0, 0.0] * 2, fall_height=0.46, reward_before=self.released,
        )  # fmt: skip

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        if self.released:
            return [0.0] * self.model.nd, list(action)
        return [0.0] * self.model.nd, [add(mul(0.5, a), 0.5) for a in action]

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        up, heading = self.orientation(q)
        forward = total(qd[3], mul(0.1, up), heading)
        if self.released:
            return add(forward, mul(-0.001, total(*(select_negative(a, -a, a) for a in action))))
        height = height_reward(q[1], 0.51, below=-1.0, above=0.05, gain=4.0)
        return total(forward, height, mul(-0.002, squared(action)))
