"""Humanoid: 21 hinges, 40.8 kg."""

from __future__ import annotations

from functools import partial

from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.rotations import UP

from .free_root import FreeRootRules, check_variant, height_reward
from .tables import read_model

__all__ = ["HEADINGS", "HumanoidRules", "humanoid_model"]

HEADINGS = {"world_x": None, "target": 200.0}
"""What the torso should face: the world's x axis, or a point so many metres along it from the start."""

_MOTORS = [200, 200, 200, *[200, 200, 600, 400, 100, 100] * 2, *[100, 100, 200] * 2]


def humanoid_model() -> Model:
    """Read Humanoid's tables: torso with head, waist and pelvis, two legs of six hinges, two arms of three."""
    return read_model("humanoid")


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
            humanoid_model(), variant, torques=[0.35 * m for m in _MOTORS], start_height=1.35, start_rotation=UP, start_joints=[0.0] * 21,
            fall_height=0.74, action_cost=0.002, height=partial(height_reward, target=0.84, below=-1.0, above=0.1, gain=10.0),
            target=HEADINGS[heading],
        )  # fmt: skip
