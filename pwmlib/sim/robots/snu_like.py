"""SNU-like humanoid: pelvis and legs driven by 152 lines of muscle, in the anatomical groups of the published model.

The published attachment points are under a non-commercial licence and are not used: the coordinates in the tables were placed by hand
from general anatomy. So this robot has the published sizes (observation 53, action 152, 37 kg) but rewards are NOT comparable with the
paper's SNU Humanoid, and it is called "SNU-like" everywhere.
"""

import csv
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

from pwmlib.sim.engine.model import Link, Muscle
from pwmlib.sim.engine.scalars import Number, Vector

from .free_root import FreeRootRules, height_reward, is_released, squared
from .tables import read_model

__all__ = ["SNULikeRules"]

_STRENGTH = 0.36
"""Fraction of the maximum isometric force that full activation gives."""


def _muscles(side: str, sign: int) -> list[Muscle]:
    """Lines of action of one leg, from a table of 40 groups: force [N] a strand, strands, their spread [m], up to three waypoints [m].

    Strand counts follow the published groups, 76 a side; forces are round numbers of the literature's order (the sum is 28 kN a side).
    The strands' offsets reach evenly from minus to plus the spread, in full at the first waypoint and to 40 % at the others.
    """
    muscles = []
    for row in csv.DictReader((Path(__file__).parent / "snu_like_muscles.csv").read_text().splitlines()):
        strands = int(row["strands"])
        for k in range(strands):
            step, waypoints = 2 * k / (strands - 1) - 1 if strands > 1 else 0.0, []
            for i in (1, 2, 3):
                if link := row[f"link_{i}"]:
                    fan = 1.0 if i == 1 else 0.4
                    x, y, z = (float(row[f"{c}_{i}"]) + fan * (step * float(row[f"d{c}"])) for c in "xyz")
                    waypoints.append((link if link == "pelvis" else f"{side}_{link}", (x, y, z * sign)))
            name = f"{side}_{row['muscle']}" + (f"_{k + 1}" if strands > 1 else "")
            muscles.append(Muscle(name, _STRENGTH * float(row["force"]), tuple(waypoints)))
    return muscles


def _by_mass(link: Link) -> Link:
    """The link with the springs of the published model, which grow with its mass."""
    mass = sum(shape.mass or 0.0 for shape in link.shapes)
    springs = {"stiffness": 5.0 * math.sqrt(mass / 15), "limit_stiffness": 1e3 * mass / 15, "limit_damping": 10 * mass / 15}
    return link if link.joint.kind == "free" else replace(link, joint=replace(link.joint, **springs))


class SNULikeRules(FreeRootRules):
    """152 muscle activations a in [-1, 1], mapped to 0.5 a + 0.5: muscles pull.

    The released environment leaves the mapping out, so its muscles can push.
    Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.002 |a|^2. Released: no R_height, and -0.001 sum |a|.
    """

    observes_action = False

    def __init__(self, variant: str = "paper"):
        self.released = is_released(variant)
        model = read_model("snu_like")
        model = replace(model, links=tuple(map(_by_mass, model.links)), muscles=(*_muscles("right", 1), *_muscles("left", -1)))
        super().__init__(
            model, variant, torques=[0.0] * len(model.muscles), start_height=1.0, start_rotation=(0, 0, 0, 1),
            start_joints=[*(0, 0, 0, 1), 0.0, *(0, 0, 0, 1), 0.0, 0.0] * 2, fall_height=0.46,
            action_cost=0.001 if self.released else 0.002, effort=(lambda action: sum(map(abs, action))) if self.released else squared,
            height=(lambda h: 0.0) if self.released else partial(height_reward, target=0.51, below=-1.0, above=0.05, gain=4.0),
        )  # fmt: skip

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Activate the muscles; there are no joint torques."""
        return [0.0] * self.model.nd, list(action) if self.released else [0.5 * a + 0.5 for a in action]
