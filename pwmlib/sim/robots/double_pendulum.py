"""DoublePendulum: an acrobot. Two hanging links, the elbow at the end of the first one, a motor at the elbow only."""

from __future__ import annotations

import math

from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.scalars import Number, Vector, cos, mul, sin, wrap_angle

from .free_root import RobotRules, total
from .tables import read_model

__all__ = ["DoublePendulumRules", "double_pendulum_model"]


def double_pendulum_model() -> Model:
    """Read its tables: two capsules of 1 m and 8.4 kg in the x-y plane; both angles are 0 when the chain stands upright."""
    return read_model("double_pendulum")


class DoublePendulumRules(RobotRules):
    """A swing-up of 240 steps that never terminates.

    The published model file puts the elbow at the shoulder; this is a proper acrobot with constants of our own (motor 200 N m), so
    returns are not comparable with published ones.
    """

    action_dim, obs_dim, noise_dim = 1, 6, 4

    def __init__(self, variant: str = "paper"):
        super().__init__(double_pendulum_model(), variant)
        self.first_rate_cost = 0.1 if self.reward_before else 0.0

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Drive the motor at the elbow, 200 N m at action 1."""
        return [0.0, mul(200.0, action[0])], []

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        """Observe cosine and sine of both angles, then both rates."""
        return [cos(q[0]), sin(q[0]), cos(q[1]), sin(q[1]), *qd]

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        """Give -th1^2 - th2^2 - 0.1 th2'^2 (the paper's text); the released reward also has -0.1 th1'^2.

        The angles are in [-pi, pi), so that it is a function of the observation.
        """
        square = [mul(x, x) for x in (*map(wrap_angle, q), *qd)]
        return total(-square[0], -square[1], mul(-self.first_rate_cost, square[2]), mul(-0.1, square[3]))

    def margin(self, q: Vector, qd: Vector) -> Number:
        """Give 1: no state ends an episode."""
        return 1.0

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        """Start with angles up to pi / 2 from upright and rates up to 0.25 rad/s."""
        return [mul(math.pi / 2, n) for n in noise[:2]], [mul(0.25, n) for n in noise[2:]]
