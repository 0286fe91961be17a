"""Rules shared by the walking robots: a free root, observations of Appendix D, rewards of Table 2, reset noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pwmlib.sim.engine.model import Model
from pwmlib.sim.engine.scalars import (
    Number,
    Vector,
    add,
    clip,
    cos,
    div,
    dot,
    mul,
    quaternion_matrix,
    quaternion_product,
    scale,
    select_negative,
    sin,
    sqrt,
    sub,
)

__all__ = ["VARIANTS", "FreeRootRules", "check_variant", "height_reward", "squared", "total"]

VARIANTS = ("paper", "released")


def check_variant(variant: str) -> str:
    """The variant, or an error that names the choices."""
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    return variant


def height_reward(h: Number, target: float, *, below: float, above: float, gain: float) -> Number:
    """R_height of Hopper and humanoids: d = clip(h - target, below, above); -200 d^2 where d < 0, gain * d above."""
    d = clip(sub(h, target), below, above)
    return select_negative(d, mul(-200.0, mul(d, d)), mul(gain, d))


class FreeRootRules:
    """A robot with a free root, driven by joint torques.

    Observation: height 1, quaternion 4, linear velocity 3, angular velocity 3, joint q, 0.1 joint qd, up 1, heading 1, actions.
    up and heading: how far the torso's own y axis points up and its x axis along the world's x (1 is best); with a `target` [m], toward the
    point (target, 0) of the ground's plane (x, z) instead.
    reward_before: the released environments compute the reward from the state before the step; the paper's convention is after.
    """

    observes_action = True

    def __init__(
        self,
        model: Model,
        *,
        torques: Sequence[float],
        start_height: float,
        start_rotation: Sequence[float],
        start_joints: Sequence[float],
        fall_height: float,
        reward_before: bool = False,
        target: float | None = None,
    ):
        self.target = target
        self.model, self.torques = model, list(torques)
        self.action_dim = len(self.torques)
        self.start_height, self.start_rotation = start_height, list(start_rotation)
        self.start_joints, self.fall_height, self.reward_before = list(start_joints), fall_height, reward_before
        if len(self.start_joints) != model.nq - 7:
            raise ValueError(f"{model.name}: start_joints has {len(self.start_joints)} numbers, the model has {model.nq - 7}")
        self.obs_dim = 1 + 4 + 6 + (model.nq - 7) + (model.nd - 6) + 2 + (self.action_dim if self.observes_action else 0)
        self.noise_dim = 3 + 1 + 3 + (model.nd - 6) + model.nd

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        forces: list[Number] = [0.0] * self.model.nd
        for i, (a, torque) in enumerate(zip(action, self.torques, strict=True)):
            forces[self.model.nd - self.action_dim + i] = mul(a, torque)
        return forces, []

    def orientation(self, q: Vector) -> tuple[Number, Number]:
        """(up, heading) of the torso."""
        x, y, z, w = self.start_rotation
        turned = quaternion_matrix(quaternion_product(q[3:7], [-x, -y, -z, w]))
        if self.target is None:
            return turned[1][1], turned[0][0]
        ahead, aside = sub(self.target, q[0]), -q[2]
        distance = sqrt(total(mul(ahead, ahead), mul(aside, aside), 1e-12))
        return turned[1][1], div(add(mul(turned[0][0], ahead), mul(turned[2][0], aside)), distance)

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        up, heading = self.orientation(q)
        slow = [mul(0.1, x) for x in qd[6:]]
        seen = [q[1], *q[3:7], *qd[3:6], *qd[0:3], *q[7:], *slow, up, heading]
        return [*seen, *action] if self.observes_action else seen

    def reward(self, q: Vector, qd: Vector, action: Vector, next_q: Vector, next_qd: Vector) -> Number:
        state = (q, qd) if self.reward_before else (next_q, next_qd)
        return self.state_reward(*state, action)

    def state_reward(self, q: Vector, qd: Vector, action: Vector) -> Number:
        """Reward from one state and the action."""
        raise NotImplementedError

    def margin(self, q: Vector, qd: Vector) -> Number:
        return sub(q[1], self.fall_height)

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        shift, turn, axis, joints, speeds = noise[:3], noise[3], noise[4:7], noise[7 : 7 + self.model.nd - 6], noise[1 + self.model.nd :]
        position = [add(mul(0.1, s), p) for s, p in zip(shift, (0.0, self.start_height, 0.0), strict=True)]
        half = mul(turn, math.pi / 48)
        length = sqrt(add(dot(axis, axis), 1e-12))
        tilt = [*scale(axis, div(sin(half), length)), cos(half)]
        return [*position, *quaternion_product(self.start_rotation, tilt), *self._joints(joints)], [mul(0.25, s) for s in speeds]

    def _joints(self, noise: Vector) -> list[Number]:
        """Joint coordinates around the start pose: +-0.2 rad; for ball joints about each axis."""
        result: list[Number] = []
        m = self.model
        for i, link in enumerate(m.links[1:], 1):
            at, d = m.q_start[i] - 7, m.qd_start[i] - 6
            if link.joint.kind == "ball":
                small = [*(mul(0.1, n) for n in noise[d : d + 3]), 1.0]
                norm = sqrt(dot(small, small))
                result += quaternion_product(self.start_joints[at : at + 4], [div(x, norm) for x in small])
            elif link.joint.kind in ("hinge", "slide"):
                result.append(add(mul(0.2, noise[d]), self.start_joints[at]))
        return result


def squared(action: Vector) -> Number:
    """|a|^2."""
    return dot(action, action)


def total(*terms: Number) -> Number:
    """Sum of terms."""
    result: Number = 0.0
    for term in terms:
        result = add(result, term)
    return result
