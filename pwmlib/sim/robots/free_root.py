"""What the robots' rules share, and the robots with a free root and motors: Ant, Anymal, Humanoid (Table 2, App. D)."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from pwmlib.errors import one_of
from pwmlib.sim.engine import scalars as s
from pwmlib.sim.engine.model import UP, Model
from pwmlib.sim.engine.rules import StepRules
from pwmlib.sim.engine.scalars import Number, Vector

from .tables import read_model

__all__ = [
    "HEADINGS", "VARIANTS", "AntRules", "AnymalRules", "FreeRootRules", "HumanoidRules", "RobotRules", "height_reward",
    "is_released", "squared",
]  # fmt: skip

VARIANTS = ("paper", "released")
HEADINGS = {"world_x": None, "target": 200.0}
"""What Humanoid's torso should face: the world's x axis, or a point so many metres along it from the start."""


def is_released(variant: str) -> bool:
    """Tell the released variant from the paper's; raises ValueError for one that is none of `VARIANTS`."""
    return one_of(variant, VARIANTS, "variant") == "released"


def height_reward(h: Number, target: float, *, below: float, above: float, gain: float) -> Number:
    """Give R_height of Hopper and humanoids: d = clip(h - target, below, above); -200 d^2 where d < 0, gain * d above."""
    d = s.clip(h - target, below, above)
    return s.select_negative(d, -200.0 * (d * d), gain * d)


def squared(action: Vector) -> Number:
    """Compute |a|^2 of an action."""
    return s.dot(action, action)


class RobotRules(StepRules):
    """Rules whose reward is a function of one state and the action.

    reward_before: of the state before the step, as in the released environments; the paper's convention is after.
    """

    def __init__(self, model: Model, variant: str):
        self.model, self.reward_before = model, is_released(variant)

    def reward(self, q: Vector, qd: Vector, action: Vector, next_q: Vector, next_qd: Vector) -> Number:
        """Give the reward of the transition, by `state_reward`."""
        return self.state_reward(q, qd, action) if self.reward_before else self.state_reward(next_q, next_qd, action)

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        """Give the reward of one state and the action."""
        raise NotImplementedError


class FreeRootRules(RobotRules):
    """A robot with a free root, driven by joint torques.

    Args:
        model: the robot, its free link first.
        variant: one of `VARIANTS`.
        torques: N m at action 1 of the last joints, one a motor.
        start_height: of the root [m].
        start_rotation: of the root, quaternion x y z w; from it `orientation` counts.
        start_joints: q of the joints.
        fall_height: of the root [m], below which an episode ends.
        action_cost: factor of `effort` in the reward.
        height: R_height of the root's height; by default how far it is above fall_height.
        effort: what the action costs.
        target: m along the world's x axis where the point lies that the robot should face; None: it should face along the axis.

    Raises:
        ValueError: start_joints are not as many as the model has, or the variant is unknown.
    """

    observes_action = True

    def __init__(
        self,
        model: Model,
        variant: str,
        *,
        torques: Sequence[float],
        start_height: float,
        start_rotation: Sequence[float],
        start_joints: Sequence[float],
        fall_height: float,
        action_cost: float,
        height: Callable[[Number], Number] | None = None,
        effort: Callable[[Vector], Number] = squared,
        target: float | None = None,
    ):
        super().__init__(model, variant)
        self.torques, self.start_height, self.start_rotation, self.start_joints = torques, start_height, start_rotation, start_joints
        self.fall_height, self.action_cost, self.effort, self.target = fall_height, action_cost, effort, target
        self.height = height or (lambda h: h - fall_height)
        if len(start_joints) != model.nq - 7:
            raise ValueError(f"{model.name}: start_joints has {len(start_joints)} numbers, the model has {model.nq - 7}")
        self.action_dim = len(torques)
        self.obs_dim = 1 + 4 + 6 + (model.nq - 7) + (model.nd - 6) + 2 + (self.action_dim if self.observes_action else 0)
        self.noise_dim = 3 + 1 + 3 + (model.nd - 6) + model.nd

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Drive the last joints; there are no muscles."""
        return [*[0.0] * (self.model.nd - self.action_dim), *(t * a for t, a in zip(self.torques, action, strict=True))], []

    def orientation(self, q: Vector) -> tuple[Number, Number]:
        """Measure (up, heading): how far the torso's y axis points up, its x axis along the world's or to the target; 1 is best."""
        x, y, z, w = self.start_rotation
        turned = s.quaternion_matrix(s.quaternion_product(q[3:7], [-x, -y, -z, w]))
        if self.target is None:
            return turned[1][1], turned[0][0]
        ahead, aside = self.target - q[0], -q[2]
        distance = s.sqrt(ahead * ahead + aside * aside + 1e-12)
        return turned[1][1], (turned[0][0] * ahead + turned[2][0] * aside) / distance

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        """Observe height 1, quaternion 4, linear velocity 3, angular velocity 3, joint q, 0.1 joint qd, up 1, heading 1, actions."""
        facing = self.orientation(q)
        seen = [q[1], *q[3:7], *qd[3:6], *qd[0:3], *q[7:], *(0.1 * x for x in qd[6:]), *facing]
        return [*seen, *action] if self.observes_action else seen

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        """Give v_x + 0.1 R_angle + R_heading + R_height - action_cost * effort (Table 2)."""
        up, heading = self.orientation(q)
        return qd[3] + 0.1 * up + heading + self.height(q[1]) - self.action_cost * self.effort(action)

    def margin(self, q: Vector, qd: Vector) -> Number:
        """Measure how far the root is above the fall height."""
        return q[1] - self.fall_height

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        """Start in the start pose, moved up to 0.1 m and turned up to 7.5 degrees, joints up to 0.2 rad off, rates up to 0.25."""
        shift, turn, axis, joints, speeds = noise[:3], noise[3], noise[4:7], noise[7 : 7 + self.model.nd - 6], noise[1 + self.model.nd :]
        position = [0.1 * shift[0], 0.1 * shift[1] + self.start_height, 0.1 * shift[2]]
        half = turn * (math.pi / 48)
        tilt = [*s.scale(axis, s.sin(half) / s.sqrt(s.dot(axis, axis) + 1e-12)), s.cos(half)]
        root = [*position, *s.quaternion_product(self.start_rotation, tilt)]
        return [*root, *self._joints(joints)], [0.25 * n for n in speeds]

    def _joints(self, noise: Vector) -> list[Number]:
        """Joint coordinates around the start pose: +-0.2 rad; for ball joints about each axis."""
        result: list[Number] = []
        m = self.model
        for i, link in enumerate(m.links[1:], 1):
            at, d = m.q_start[i] - 7, m.qd_start[i] - 6
            if link.joint.kind == "ball":
                small = [*(0.1 * n for n in noise[d : d + 3]), 1.0]
                norm = s.sqrt(s.dot(small, small))
                result += s.quaternion_product(self.start_joints[at : at + 4], [x / norm for x in small])
            elif link.joint.kind in ("hinge", "slide"):
                result.append(0.2 * noise[d] + self.start_joints[at])
        return result


class AntRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.01 |a|^2; the released constant is 0. R_height = h - 0.27."""

    def __init__(self, variant: str = "paper"):
        super().__init__(
            read_model("ant"), variant, torques=[200.0] * 8, start_height=0.75, start_rotation=UP,
            start_joints=(0, 1, 0, -1, 0, -1, 0, 1), fall_height=0.27, action_cost=0.0 if variant == "released" else 0.01,
        )  # fmt: skip


class AnymalRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.01 |a|^2; the released constant is 0.005. R_height = h - 0.25.

    A quadruped with the dimensions and masses of ANYmal B, simplified to a box and capsules; springs hold it near the start pose.
    """

    def __init__(self, variant: str = "paper"):
        model = read_model("anymal")
        super().__init__(
            model, variant, torques=[200.0] * 12, start_height=0.55, start_rotation=UP,
            start_joints=[link.joint.target for link in model.links[1:]], fall_height=0.25,
            action_cost=0.005 if variant == "released" else 0.01,
        )  # fmt: skip


class HumanoidRules(FreeRootRules):
    """Reward (Table 2): v_x + R_height + 0.1 R_angle + R_heading - 0.002 |a|^2; R_height is 10 d, or -200 d^2 below 0.84 m.

    heading: one of `HEADINGS`. The released environment faces a point 200 m ahead, which differs once the robot has left the x axis
    sideways; the paper gives no point, so its variant faces along x.
    """

    def __init__(self, variant: str = "paper", *, heading: str | None = None):
        heading = one_of(heading or ("target" if is_released(variant) else "world_x"), HEADINGS, "HumanoidRules: heading")
        motors = [200, 200, 200, *[200, 200, 600, 400, 100, 100] * 2, *[100, 100, 200] * 2]
        super().__init__(
            read_model("humanoid"), variant, torques=[0.35 * m for m in motors], start_height=1.35, start_rotation=UP,
            start_joints=[0.0] * 21, fall_height=0.74, action_cost=0.002,
            height=partial(height_reward, target=0.84, below=-1.0, above=0.1, gain=10.0), target=HEADINGS[heading],
        )  # fmt: skip
