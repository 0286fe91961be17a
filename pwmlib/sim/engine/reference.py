"""The oracle: the same dynamics and rules on float64 torch tensors, differentiated by autograd. Slow, and without a line of generated code.

The loops over contacts and muscles become one batched call each: the same formulas on tensors [item, environment].
"""

from __future__ import annotations

import torch
from torch import Tensor

from pwmlib.sim.engine.bridge import Step

from .model import Material, Model
from .rigid_bodies import (
    contact_wrench,
    factorise,
    forward_kinematics,
    inertial_wrenches,
    integrate,
    joint_forces,
    link_motion,
    mass_matrix,
    pose_of,
    segment_wrenches,
    solve,
)
from .rules import StepRules, ended
from .scalars import clip, from_columns, vadd

__all__ = ["Reference", "total_energy", "total_momentum"]


class Reference:
    """`Simulator.step` without resets, in any dtype (float64 by default): state [E, nq + nd], action [E, action_dim]."""

    def __init__(self, rules: StepRules, *, substeps: int, interval: int, dt: float = 1 / 60, material: Material | None = None):
        self.rules, self.substeps, self.interval, self.dt = rules, substeps, interval, dt
        self.material = material or rules.model.material

    def step(self, state: Tensor, action: Tensor) -> Step:
        """One control step; see `Simulator.step`."""
        nq = self.rules.model.nq
        q0, d0 = from_columns(state[:, :nq]), from_columns(state[:, nq:])
        a = [clip(x, -1.0, 1.0) for x in from_columns(action)]
        actuation, activation = self.rules.actuate(a)
        q, qd, factor = q0, d0, None
        for s in range(self.substeps):
            if s % self.interval == 0:
                factor = self.factor(q)
            q, qd = self.substep(q, qd, actuation, activation, factor)
        obs = _rows(self.rules.observe(q, qd, a), state)
        reward = _rows([self.rules.reward(q0, d0, a, q, qd)], state)[:, 0]
        after = _rows([*q, *qd], state)
        terminated = ended(self.rules, after)
        return Step(after, obs, obs, reward, terminated, torch.zeros_like(terminated))

    def factor(self, q: list) -> dict:
        """Factor of the mass matrix at q (nq columns)."""
        model = self.rules.model
        return factorise(model, mass_matrix(model, forward_kinematics(model, q)))

    def substep(self, q: list, qd: list, actuation: list, activation: list, factor: dict) -> tuple[list, list]:
        """(q', qd') after dt / substeps; columns in, columns out."""
        model = self.rules.model
        tau = forces(model, self.material, q, qd, actuation, activation)
        return integrate(model, q, qd, solve(model, factor, tau), self.dt / self.substeps)


def forces(model: Model, material: Material, q: list, qd: list, actuation: list, activation: list) -> list:
    """Generalised forces tau with contacts and muscles, nd columns."""
    frames = forward_kinematics(model, q)
    motion = link_motion(model, frames, qd)
    wrenches = inertial_wrenches(model, frames, motion)
    like = q[0]

    def gather(links: list[int]) -> list[Tensor]:
        poses = [[_column(x, like) for x in pose_of(frames, motion, i)] for i in links]
        return [torch.stack(values) for values in zip(*poses, strict=True)]

    def scatter(links: list[int], columns: list) -> None:
        columns = [_column(c, like, len(links)) for c in columns]
        for k, link in enumerate(links):
            six = [c[k] for c in columns]
            wrenches[link] = (vadd(wrenches[link][0], six[:3]), vadd(wrenches[link][1], six[3:]))

    def table(rows: list) -> list[Tensor]:
        return [x[:, None] for x in torch.tensor(rows, dtype=like.dtype, device=like.device).unbind(-1)]

    if model.contacts:
        links = [c.link for c in model.contacts]
        m = material
        columns = table([[*c.point, c.radius, m.ke, m.kd, m.kf, m.mu] for c in model.contacts])
        scatter(links, contact_wrench(gather(links), columns[:3], *columns[3:]))
    if model.segments:
        muscles, a, b, x, y = (list(part) for part in zip(*model.segments, strict=True))
        pull = torch.stack([_column(activation[m], like) * model.muscles[m].strength for m in muscles])
        on_a, on_b = segment_wrenches(gather(a), gather(b), table(x), table(y), pull)
        scatter(a, on_a)
        scatter(b, on_b)
    return joint_forces(model, frames, q, qd, wrenches, actuation)


def total_energy(model: Model, q: list, qd: list) -> Tensor:
    """Kinetic plus potential energy [J] without springs, per environment; armature counts as inertia."""
    frames = forward_kinematics(model, q)
    energy = 0.0
    for (i, j), h in mass_matrix(model, frames).items():
        energy = energy + h * qd[i] * qd[j] * (0.5 if i == j else 1.0)
    for i, body in enumerate(model.masses):
        com = [sum(r * c for r, c in zip(row, body.com.tolist(), strict=True)) for row in frames.rotations[i]]
        energy = energy + body.mass * model.gravity * (frames.height + frames.positions[i][1] + com[1])
    return energy


def total_momentum(model: Model, q: list, qd: list) -> tuple[Tensor, Tensor]:
    """Linear momentum [kg m/s] and angular momentum about the common centre of mass [kg m^2/s], each [E, 3]."""
    frames = forward_kinematics(model, q)
    motion = link_motion(model, frames, qd)
    like, mass, first, linear, angular = q[0], 0.0, 0.0, 0.0, 0.0
    for i, body in enumerate(model.masses):
        if body.mass == 0:
            continue
        r = torch.stack([torch.stack([_column(x, like) for x in row], -1) for row in frames.rotations[i]], -2)
        vector = [torch.stack([_column(x, like) for x in v], -1) for v in (frames.positions[i], motion.angular[i], motion.linear[i])]
        position, w, v = vector
        com = position + r @ torch.tensor(body.com, dtype=like.dtype)
        p = body.mass * (v + torch.linalg.cross(w, com))
        inertia = r @ torch.tensor(body.inertia, dtype=like.dtype) @ r.mT
        linear, angular = linear + p, angular + torch.linalg.cross(com, p) + (inertia @ w[..., None])[..., 0]
        mass, first = mass + body.mass, first + body.mass * com
    return linear, angular - torch.linalg.cross(first / mass, linear)


def _column(x: object, like: Tensor, rows: int | None = None) -> Tensor:
    shape = like.shape if rows is None else (rows, *like.shape)
    return torch.as_tensor(x, dtype=like.dtype, device=like.device).expand(shape)


def _rows(columns: list, like: Tensor) -> Tensor:
    return torch.stack([_column(c, like[:, 0]) for c in columns], -1)
