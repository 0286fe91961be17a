"""The oracle: the same dynamics and rules on float64 torch tensors, differentiated by autograd. Slow, and without a line of generated code.

The loops over contacts and muscles become one batched call each: the same formulas on tensors [item, environment].
"""

from __future__ import annotations

import torch
from torch import Tensor

from pwmlib.sim.engine import rigid_bodies as rb
from pwmlib.sim.engine.bridge import Step
from pwmlib.sim.engine.model import Material, Model
from pwmlib.sim.engine.rules import StepRules, ended
from pwmlib.sim.engine.scalars import Number, Vector, clip, dot, from_columns, mul, stack_columns, vadd


class Reference:
    """`Simulator.step` without resets, in any dtype; float64 is what it is for.

    Args:
        rules: as of `Simulator`, here and below.
        substeps: of a control step.
        interval: substeps between updates of the mass matrix.
        dt: control step [s].
        material: of the contacts, the model's own by default.
    """

    def __init__(self, rules: StepRules, *, substeps: int, interval: int, dt: float = 1 / 60, material: Material | None = None):
        self.rules, self.substeps, self.interval, self.dt = rules, substeps, interval, dt
        self.material = material or rules.model.material

    def step(self, state: Tensor, action: Tensor) -> Step:
        """Take one control step from state [E, nq + nd] with action [E, action_dim]; see `Simulator.step`."""
        model, rules = self.rules.model, self.rules
        q0, d0 = from_columns(state[:, : model.nq]), from_columns(state[:, model.nq :])
        a = [clip(x, -1.0, 1.0) for x in from_columns(action)]
        actuation, activation = rules.actuate(a)
        q: Vector = q0
        qd: Vector = d0
        factor: dict[tuple[int, int], Number] = {}
        for s in range(self.substeps):
            if s % self.interval == 0:
                factor = rb.factorise(model, rb.mass_matrix(model, rb.forward_kinematics(model, q)))
            tau = forces(model, self.material, q, qd, actuation, activation)
            q, qd = rb.integrate(model, q, qd, rb.solve(model, factor, tau), self.dt / self.substeps)
        obs, after = stack_columns(rules.observe(q, qd, a), state), stack_columns([*q, *qd], state)
        reward = stack_columns([rules.reward(q0, d0, a, q, qd)], state)[:, 0]
        terminated = ended(rules, after)
        return Step(after, obs, obs, reward, terminated, torch.zeros_like(terminated))


def forces(model: Model, material: Material, q: Vector, qd: Vector, actuation: Vector, activation: Vector) -> list[Number]:
    """Compute the generalised forces tau with contacts and muscles, nd columns.

    Args:
        model: the robot.
        material: of its contacts.
        q: nq columns, tensors [E].
        qd: nd columns.
        actuation: nd columns, added to the joints' own forces.
        activation: a column for each muscle.
    """
    frames = rb.forward_kinematics(model, q)
    motion = rb.link_motion(model, frames, qd)
    wrenches = rb.inertial_wrenches(model, frames, motion)
    like = torch.as_tensor(q[0])

    def gather(links: list[int]) -> list[Tensor]:
        return [
            torch.stack(values) for values in zip(*([_column(x, like) for x in rb.pose_of(frames, motion, i)] for i in links), strict=True)
        ]

    def scatter(links: list[int], columns: Vector) -> None:
        full = [_column(c, like, len(links)) for c in columns]
        for k, link in enumerate(links):
            six = [c[k] for c in full]
            wrenches[link] = (vadd(wrenches[link][0], six[:3]), vadd(wrenches[link][1], six[3:]))

    def table(rows: list) -> list[Tensor]:
        return [x[:, None] for x in torch.tensor(rows, dtype=like.dtype, device=like.device).unbind(-1)]

    if model.contacts:
        links = [c.link for c in model.contacts]
        x, y, z, *rest = table([[*c.point, c.radius, material.ke, material.kd, material.kf, material.mu] for c in model.contacts])
        scatter(links, rb.contact_wrench(gather(links), [x, y, z], *rest))
    if model.segments:
        muscles, a, b, x, y = (list(part) for part in zip(*model.segments, strict=True))
        pull = torch.stack([_column(activation[m], like) * model.muscles[m].strength for m in muscles])
        on_a, on_b = rb.segment_wrenches(gather(a), gather(b), table(x), table(y), pull)
        scatter(a, on_a)
        scatter(b, on_b)
    return rb.joint_forces(model, frames, q, qd, wrenches, actuation)


def total_energy(model: Model, q: Vector, qd: Vector) -> Tensor:
    """Add kinetic and potential energy [J], without springs, per environment; armature counts as inertia."""
    frames = rb.forward_kinematics(model, q)
    energy = torch.zeros_like(torch.as_tensor(q[0]))
    for (i, j), h in rb.mass_matrix(model, frames).items():
        energy = energy + _column(mul(mul(h, qd[i]), qd[j]), energy) * (0.5 if i == j else 1.0)
    for i, body in enumerate(model.masses):
        com = dot(frames.rotations[i][1], body.com.tolist())
        energy = energy + body.mass * model.gravity * _column(frames.height + frames.positions[i][1] + com, energy)
    return energy


def total_momentum(model: Model, q: Vector, qd: Vector) -> tuple[Tensor, Tensor]:
    """Compute linear momentum [kg m/s] and angular momentum about the common centre of mass [kg m^2/s], each [E, 3]."""
    frames = rb.forward_kinematics(model, q)
    motion = rb.link_motion(model, frames, qd)
    rows = torch.as_tensor(q[0])[:, None]
    mass, first, linear, angular = 0.0, *torch.zeros(3, len(rows), 3, dtype=rows.dtype)
    for i, body in enumerate(model.masses):
        if body.mass == 0:
            continue
        r = torch.stack([stack_columns(row, rows) for row in frames.rotations[i]], -2)
        position, w, v = (stack_columns(x, rows) for x in (frames.positions[i], motion[i].angular, motion[i].linear))
        com = position + r @ torch.tensor(body.com, dtype=rows.dtype)
        p = body.mass * (v + torch.linalg.cross(w, com))
        inertia = r @ torch.tensor(body.inertia, dtype=rows.dtype) @ r.mT
        linear, angular = linear + p, angular + torch.linalg.cross(com, p) + (inertia @ w[..., None])[..., 0]
        mass, first = mass + body.mass, first + body.mass * com
    return linear, angular - torch.linalg.cross(first / mass, linear)


def _column(x: Number, like: Tensor, rows: int | None = None) -> Tensor:
    shape = like.shape if rows is None else (rows, *like.shape)
    return torch.as_tensor(x, dtype=like.dtype, device=like.device).expand(shape)
