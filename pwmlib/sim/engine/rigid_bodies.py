"""Articulated dynamics over generic scalars: every formula of the simulator, once.

World axes, y up. All positions are relative to the solve origin o: the root link's origin when the root joint is free, the world's
origin otherwise (a horizontal slide at the root moves o along). So a robot 150 m away loses no precision.

    motion        v = v_parent + S qd            S: joint axes as (angular; linear about o)
    bias          a = a_parent + v x (S qd)      acceleration at qdd = 0; zero for a free root
    inertial      F = m (a_lin + a_ang x c + w x v_c - g),  N = I a_ang + w x I w      at the com c; wrench (N + c x F, F)
    joint force   tau = -S . (sum of the subtree's wrenches) + spring, damper, limits + actuation
    acceleration  (H + diag(armature)) qdd = tau
    integration   qd' = qd + dt qdd, then q' = q (+) dt qd'           symplectic Euler
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .model import Model
from .scalars import (
    Matrix,
    Number,
    Vector,
    cross,
    dot,
    identity,
    matmul,
    matvec,
    mul,
    quaternion_matrix,
    quaternion_product,
    rotation,
    scale,
    select_negative,
    sqrt,
    transpose,
    vadd,
)

Wrench = tuple[list[Number], list[Number]]
"""(moment about o [N m], force [N])."""

POSE = 19
"""Numbers that contacts and muscles read of a link: rotation (9, rows), position (3), angular and linear velocity (6), height (1)."""

_TINY = 1e-12


@dataclass
class Frames:
    """Poses: rotations [link][3][3], positions [link][3] relative to o, axes [dof] = (angular, linear about o), o's height above ground."""

    rotations: list[Matrix]
    positions: list[Vector]
    axes: list[tuple[Vector, Vector]]
    height: Number


class Motion(NamedTuple):
    """Velocity (w, v) and bias acceleration of a link, about o."""

    angular: Vector
    linear: Vector
    bias_angular: Vector
    bias_linear: Vector


def forward_kinematics(model: Model, q: Vector) -> Frames:
    """Compute the poses of all links and the joint axes from q, nq scalars."""
    rotations: list[Matrix] = []
    positions: list[Vector] = []
    axes: list[tuple[Vector, Vector]] = []
    height: Number = 0.0
    for i, link in enumerate(model.links):
        joint, parent, at = link.joint, model.parents[i], model.q_start[i]
        above, origin = (rotations[parent], positions[parent]) if parent >= 0 else (identity(), [0.0, 0.0, 0.0])
        frame, place = matmul(above, model.joint_rotations[i]), vadd(origin, matvec(above, joint.position))
        turned = frame
        if joint.kind == "free":
            turned, place, height, unit = quaternion_matrix(q[at + 3 : at + 7]), [0.0, 0.0, 0.0], q[at + 1], identity()
            axes += [(unit[k], [0.0] * 3) for k in range(3)] + [([0.0] * 3, unit[k]) for k in range(3)]
        elif joint.kind == "hinge":
            axis = matvec(frame, model.axes[i])
            turned = matmul(frame, rotation(model.axes[i], q[at]))
            axes.append((axis, cross(place, axis)))
        elif joint.kind == "slide":
            axis = matvec(frame, model.axes[i])
            if parent >= 0 or axis[1] != 0.0:
                place = vadd(place, scale(axis, q[at]))
            axes.append(([0.0] * 3, axis))
        elif joint.kind == "ball":
            turned = matmul(frame, quaternion_matrix(q[at : at + 4]))
            axes += [(axis, cross(place, axis)) for axis in transpose(frame)]
        rotations.append(turned)
        positions.append(place)
    return Frames(rotations, positions, axes, height)


def link_motion(model: Model, frames: Frames, qd: Vector) -> list[Motion]:
    """Compute velocities and bias accelerations of all links from qd, nd scalars."""
    zero = [0.0] * 3
    motion: list[Motion] = []
    for i, link in enumerate(model.links):
        w, v, aw, av = motion[model.parents[i]] if model.parents[i] >= 0 else (zero, zero, zero, zero)
        own_w, own_v = zero, zero
        for d in range(model.qd_start[i], model.qd_start[i + 1]):
            own_w, own_v = vadd(own_w, scale(frames.axes[d][0], qd[d])), vadd(own_v, scale(frames.axes[d][1], qd[d]))
        w, v = vadd(w, own_w), vadd(v, own_v)
        if link.joint.kind != "free":
            aw, av = vadd(aw, cross(w, own_w)), vadd(av, vadd(cross(w, own_v), cross(v, own_w)))
        motion.append(Motion(w, v, aw, av))
    return motion


def inertial_wrenches(model: Model, frames: Frames, motion: Sequence[Motion]) -> list[Wrench]:
    """Compute what each link needs to follow its bias acceleration against gravity."""
    wrenches: list[Wrench] = []
    for i, body in enumerate(model.masses):
        if body.mass == 0:
            wrenches.append(([0.0] * 3, [0.0] * 3))
            continue
        r, (w, v, aw, av) = frames.rotations[i], motion[i]
        c = vadd(frames.positions[i], matvec(r, body.com.tolist()))
        velocity = vadd(v, cross(w, c))
        acceleration = vadd(vadd(av, cross(aw, c)), cross(w, velocity))
        force = scale([acceleration[0], acceleration[1] + model.gravity, acceleration[2]], body.mass)
        inertia, local_w, local_aw = body.inertia.tolist(), matvec(transpose(r), w), matvec(transpose(r), aw)
        moment = matvec(r, vadd(matvec(inertia, local_aw), cross(local_w, matvec(inertia, local_w))))
        wrenches.append((vadd(moment, cross(c, force)), force))
    return wrenches


def pose_of(frames: Frames, motion: Sequence[Motion], i: int) -> list[Number]:
    """List the POSE numbers of link i."""
    flat = [x for row in frames.rotations[i] for x in row]
    return [*flat, *frames.positions[i], *motion[i].angular, *motion[i].linear, frames.positions[i][1] + frames.height]


def _placed(pose: Vector, point: Vector) -> list[Number]:
    """A point of a link, relative to o."""
    return vadd(pose[9:12], matvec([pose[0:3], pose[3:6], pose[6:9]], point))


def contact_depth(pose: Vector, point: Vector, radius: Number) -> Number:
    """Measure the ball's lowest point above the ground [m]; it is negative when it touches."""
    return pose[18] + dot(pose[3:6], point) - radius


def contact_wrench(pose: Vector, point: Vector, radius: Number, ke: Number, kd: Number, kf: Number, mu: Number) -> list[Number]:
    """Compute what the link needs against the ground, as 6 scalars (the reaction with its sign turned, like an inertial wrench).

    Normal: -(ke depth + kd min(u_y, 0) (-depth)); friction opposes the tangential velocity u_t of the lowest point with magnitude
    min(kf |u_t|, mu ke |depth|). Continuous in depth; the normal is the ground's.
    """
    depth = contact_depth(pose, point, radius)
    x, y, z = _placed(pose, point)
    lever = [x, y - radius, z]
    u = vadd(pose[15:18], cross(pose[12:15], lever))
    normal = ke * depth - kd * select_negative(u[1], u[1], 0.0) * depth
    limit = -(mu * ke * depth) / sqrt(u[0] * u[0] + u[2] * u[2] + _TINY)
    friction = select_negative(limit - kf, limit, kf)
    force = [select_negative(depth, f, 0.0) for f in (u[0] * friction, normal, u[2] * friction)]
    return [*cross(lever, force), *force]


def segment_wrenches(pose_a: Vector, pose_b: Vector, point_a: Vector, point_b: Vector, tension: Number) -> tuple[list, list]:
    """Compute the wrenches (6 scalars each, signs as in `contact_wrench`) of a muscle segment that pulls its two ends together."""
    x, y = _placed(pose_a, point_a), _placed(pose_b, point_b)
    along = [b - a for a, b in zip(x, y, strict=True)]
    force = scale(along, tension / sqrt(dot(along, along) + _TINY))
    pull = [-f for f in force]
    return [*cross(x, pull), *pull], [*cross(y, force), *force]


def joint_forces(model: Model, frames: Frames, q: Vector, qd: Vector, wrenches: Sequence[Wrench], actuation: Vector) -> list[Number]:
    """Project the wrenches on the joints and add springs, dampers, limits and actuation (nd scalars): tau, nd scalars."""
    moments, forces = [m for m, _ in wrenches], [f for _, f in wrenches]
    tau: list[Number] = [0.0] * model.nd
    for i in range(len(model.links) - 1, -1, -1):
        joint, at, start = model.links[i].joint, model.q_start[i], model.qd_start[i]
        for k, d in enumerate(range(start, model.qd_start[i + 1])):
            force = actuation[d] - (dot(frames.axes[d][0], moments[i]) + dot(frames.axes[d][1], forces[i]))
            if joint.kind in ("hinge", "slide"):
                force = force - qd[d] * (joint.damping + joint.limit_damping) - joint.stiffness * (q[at] - joint.target)
                if joint.lower is not None:
                    below = q[at] - joint.lower
                    force = force - joint.limit_stiffness * select_negative(below, below, 0.0)
                if joint.upper is not None:
                    above = joint.upper - q[at]
                    force = force + joint.limit_stiffness * select_negative(above, above, 0.0)
            elif joint.kind == "ball":
                force = force - qd[d] * joint.damping - q[at + k] * joint.stiffness
            tau[d] = force
        if (p := model.parents[i]) >= 0:
            moments[p], forces[p] = vadd(moments[p], moments[i]), vadd(forces[p], forces[i])
    return tau


def mass_matrix(model: Model, frames: Frames) -> dict[tuple[int, int], Number]:
    """Compute the composite-rigid-body H with armature, for the entries of `model.mass_entries`."""
    mass, first, second = [], [], []
    for i, body in enumerate(model.masses):
        c = vadd(frames.positions[i], matvec(frames.rotations[i], body.com.tolist())) if body.mass else [0.0] * 3
        r = frames.rotations[i]
        about_com = matmul(matmul(r, body.inertia.tolist()), transpose(r))
        cc = dot(c, c)
        shifted = [[mul(body.mass, (cc if a == b else 0.0) - mul(c[a], c[b])) for b in range(3)] for a in range(3)]
        mass.append(body.mass)
        first.append(scale(c, body.mass))
        second.append([vadd(x, y) for x, y in zip(about_com, shifted, strict=True)])
    for i in range(len(model.links) - 1, -1, -1):
        if (p := model.parents[i]) >= 0:
            mass[p], first[p] = mass[p] + mass[i], vadd(first[p], first[i])
            second[p] = [vadd(x, y) for x, y in zip(second[p], second[i], strict=True)]
    entries: dict[tuple[int, int], Number] = {}
    for i, link in enumerate(model.links):
        for d in range(model.qd_start[i], model.qd_start[i + 1]):
            w, v = frames.axes[d]
            force = vadd(scale(v, mass[i]), cross(w, first[i]))
            moment = vadd(matvec(second[i], w), cross(first[i], v))
            for e in [*model.ancestors[d], d]:
                entries[d, e] = dot(frames.axes[e][0], moment) + dot(frames.axes[e][1], force)
            entries[d, d] = entries[d, d] + link.joint.armature
    return entries


def factorise(model: Model, entries: Mapping[tuple[int, int], Number]) -> dict[tuple[int, int], Number]:
    """Factorise H = L^T L without fill-in (Featherstone's sparsity); L's diagonal holds 1 / L_dd."""
    factor = dict(entries)
    for k in range(model.nd - 1, -1, -1):
        inverse = 1.0 / sqrt(factor[k, k])
        factor[k, k] = inverse
        for i in model.ancestors[k]:
            factor[k, i] = mul(factor[k, i], inverse)
        for i in model.ancestors[k]:
            for j in [i, *model.ancestors[i]]:
                factor[i, j] = factor[i, j] - mul(factor[k, i], factor[k, j])
    return factor


def solve(model: Model, factor: Mapping[tuple[int, int], Number], b: Vector) -> list[Number]:
    """Solve L^T L x = b for x, with the factor of `factorise`."""
    x = list(b)
    for i in range(model.nd - 1, -1, -1):
        x[i] = mul(x[i], factor[i, i])
        for j in model.ancestors[i]:
            x[j] = x[j] - mul(factor[i, j], x[i])
    for i in range(model.nd):
        for j in model.ancestors[i]:
            x[i] = x[i] - mul(factor[i, j], x[j])
        x[i] = mul(x[i], factor[i, i])
    return x


def integrate(model: Model, q: Vector, qd: Vector, qdd: Vector, dt: Number) -> tuple[list[Number], list[Number]]:
    """Take a step of symplectic Euler to (q', qd'); quaternions become r + dt/2 (w, 0) r, normalised."""
    new_q, new_qd = list(q), [v + a * dt for v, a in zip(qd, qdd, strict=True)]
    for i, link in enumerate(model.links):
        at, d = model.q_start[i], model.qd_start[i]
        if link.joint.kind in ("hinge", "slide"):
            new_q[at] = q[at] + new_qd[d] * dt
        elif link.joint.kind in ("free", "ball"):
            w, r = new_qd[d : d + 3], at + 3 if link.joint.kind == "free" else at
            turned = vadd(q[r : r + 4], scale(quaternion_product([*w, 0.0], q[r : r + 4]), 0.5 * dt))
            norm = sqrt(dot(turned, turned))
            new_q[r : r + 4] = [x / norm for x in turned]
            if link.joint.kind == "free":
                moved = scale(new_qd[d + 3 : d + 6], dt)
                new_q[at : at + 3] = vadd(q[at : at + 3], moved)
                new_qd[d + 3 : d + 6] = vadd(new_qd[d + 3 : d + 6], cross(w, moved))
    return new_q, new_qd
