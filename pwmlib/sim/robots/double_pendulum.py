"""DoublePendulum: an acrobot. Two hanging links, the elbow at the end of the first one, a motor at the elbow only."""

from __future__ import annotations

import math

from pwmlib.sim.engine.model import Joint, Link, Model
from pwmlib.sim.engine.scalars import Number, Vector, add, cos, mul, sin, wrap_angle
from pwmlib.sim.engine.shapes import Capsule

from .free_root import check_variant, total

__all__ = ["DoublePendulumRules", "double_pendulum_model"]


def double_pendulum_model() -> Model:
    """Two capsules of 1 m and 8.4 kg in the x-y plane; both angles are 0 when the chain stands upright. No contacts, no limits."""
    joint = {"axis": (0, 0, 1), "armature": 0.1, "limit_damping": 1.0}
    rod = (Capsule((0, 0, 0), (0, 1, 0), 0.05),)
    return Model(
        "double_pendulum",
        (
            Link("upper", Joint("hinge", position=(0, 2.5, 0), **joint), None, rod, collides=False),
            Link("lower", Joint("hinge", position=(0, 1, 0), **joint), "upper", rod, collides=False),
        ),
    )


class DoublePendulumRules:
    """Observation 6: cos and sin of both angles, both rates. Reward: -th1^2 - th2^2 - 0.1 th2'^2 (the paper's text), angles in
    [-pi, pi) so that it is a function of the observation; the released one also has -0.1 th1'^2. Never terminates; 240 steps.

    The published model file puts the elbow at the shoulder; this is a proper acrobot with constants of our own (motor 200 N m), so
    returns are not comparable with published ones.
    """

    action_dim, obs_dim, noise_dim = 1, 6, 4

    def __init__(self, variant: str = "paper", *, torque: float = 200.0):
        released = check_variant(variant) == "released"
        self.model, self.torque = double_pendulum_model(), torque
        self.reward_before, self.first_rate_cost = released, 0.1 if released else 0.0

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        return [0.0, mul(self.torque, action[0])], []

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        return [cos(q[0]), sin(q[0]), cos(q[1]), sin(q[1]), *qd]

    def reward(self, q: Vector, qd: Vector, action: Vector, next_q: Vector, next_qd: Vector) -> Number:
        if not self.reward_before:
            q, qd = next_q, next_qd
        square = [mul(x, x) for x in (*map(wrap_angle, q), *qd)]
        return total(-square[0], -square[1], mul(-self.first_rate_cost, square[2]), mul(-0.1, square[3]))

    def margin(self, q: Vector, qd: Vector) -> Number:
        return add(1.0, mul(0.0, q[0]))

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        return [mul(math.pi / 2, n) for n in noise[:2]], [mul(0.25, n) for n in noise[2:]]
