"""Ant: a ball with four legs of two hinges."""

from __future__ import annotations

from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.rotations import UP

from .free_root import FreeRootRules
from .tables import read_model

__all__ = ["AntRules", "ant_model"]


def ant_model() -> Model:
    """Read Ant's tables: 182 kg, by the density of 1000 kg/m^3 of the published runs."""
    return read_model("ant")


class AntRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.01 |a|^2; the released constant is 0. R_height = h - 0.27."""

    def __init__(self, variant: str = "paper"):
        super().__init__(
            ant_model(), variant, torques=[200.0] * 8, start_height=0.75, start_rotation=UP, start_joints=(0, 1, 0, -1, 0, -1, 0, 1),
            fall_height=0.27, action_cost=0.0 if variant == "released" else 0.01,
        )  # fmt: skip
