"""Anymal: a quadruped with the dimensions and masses of ANYmal B, simplified to a box and capsules."""

from __future__ import annotations

from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.rotations import UP

from .free_root import FreeRootRules
from .tables import read_model

__all__ = ["AnymalRules", "anymal_model"]


def anymal_model() -> Model:
    """Read Anymal's tables: hip abduction, hip flexion and knee a leg, held near the start pose by springs."""
    return read_model("anymal")


class AnymalRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.01 |a|^2; the released constant is 0.005. R_height = h - 0.25."""

    def __init__(self, variant: str = "paper"):
        model = anymal_model()
        super().__init__(
            model, variant, torques=[200.0] * 12, start_height=0.55, start_rotation=UP,
            start_joints=[link.joint.target for link in model.links[1:]], fall_height=0.25,
            action_cost=0.005 if variant == "released" else 0.01,
        )  # fmt: skip
