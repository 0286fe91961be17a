"""The robots in the x-y plane: Hopper, a leg of four capsules, and DoublePendulum, an acrobot with a motor at the elbow only."""

import math

from pwmlib.sim.engine.scalars import Number, Vector, cos, sin, wrap_angle

from .free_root import RobotRules, height_reward, squared
from .tables import read_model

__all__ = ["DoublePendulumRules", "HopperRules"]


class HopperRules(RobotRules):
    """Three motors of 200 N m; height 0 is standing."""

    action_dim, obs_dim, noise_dim = 3, 11, 12

    def __init__(self, variant: str = "paper"):
        super().__init__(read_model("hopper"), variant)

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Drive the three hinges below the root."""
        return [0.0, 0.0, 0.0, *(200.0 * a for a in action)], []

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        """Observe q without x, then qd."""
        return [*q[1:], *qd]

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        """Give v_x + R_height + R_angle - 0.1 |a|^2 (Table 2)."""
        height = height_reward(q[1], -0.3, below=-1.0, above=0.3, gain=1.0)
        tilt = q[2] * (6 / math.pi)
        return qd[0] + height + (1.0 - tilt * tilt) - 0.1 * squared(action)

    def margin(self, q: Vector, qd: Vector) -> Number:
        """Measure how far it is above its fall at height -0.45."""
        return q[1] + 0.45

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        """Start standing, each coordinate and rate up to 0.05 off."""
        small = [0.05 * n for n in noise]
        return small[:6], small[6:]


class DoublePendulumRules(RobotRules):
    """A swing-up of 240 steps that never terminates.

    The published model file puts the elbow at the shoulder; this is a proper acrobot with constants of our own (motor 200 N m), so
    returns are not comparable with published ones.
    """

    action_dim, obs_dim, noise_dim = 1, 6, 4

    def __init__(self, variant: str = "paper"):
        super().__init__(read_model("double_pendulum"), variant)
        self.first_rate_cost = 0.1 if self.reward_before else 0.0

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Drive the motor at the elbow, 200 N m at action 1."""
        return [0.0, 200.0 * action[0]], []

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        """Observe cosine and sine of both angles, then both rates."""
        return [cos(q[0]), sin(q[0]), cos(q[1]), sin(q[1]), *qd]

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        """Give -th1^2 - th2^2 - 0.1 th2'^2 (the paper's text); the released reward also has -0.1 th1'^2.

        The angles are in [-pi, pi), so that it is a function of the observation.
        """
        first, second, first_rate, second_rate = (x * x for x in (*map(wrap_angle, q), *qd))
        return -first - second - self.first_rate_cost * first_rate - 0.1 * second_rate

    def margin(self, q: Vector, qd: Vector) -> Number:
        """Give 1: no state ends an episode."""
        return 1.0

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        """Start with angles up to pi / 2 from upright and rates up to 0.25 rad/s."""
        return [math.pi / 2 * n for n in noise[:2]], [0.25 * n for n in noise[2:]]
