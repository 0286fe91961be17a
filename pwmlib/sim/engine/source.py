"""The text of the two kernels of a model: the traced formulas in a fixed frame of loops, for packs on a CPU or threads on CUDA.

Memory. Environments are grouped in packs of W: a SIMD vector on the CPU (one kernel thread is a pack), a warp on CUDA (one kernel
thread is an environment). The trajectory of a control step, kept for the backward kernel, is [pack, item, W] with the items of
`trajectory_items`; what the caller sees (state, action, observation, reward) is row-major [environment, item].

The fixed text, loops and vector types, lies in the folder `kernels` as C++, in which @NAME@ stands for what is put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import rigid_bodies as rb
from .model import Model
from .rules import EXTENT, StepRules
from .scalars import Number, vadd
from .trace import Graph, Store, emit, reverse

__all__ = ["CONFIG", "CONTACT_COLUMNS", "FRAMES", "PRELUDE", "SEGMENT_COLUMNS", "kernel_sources", "trajectory_items"]

CONTACT_COLUMNS = 8
"""point (3), radius, ke, kd, kf, mu of a contact in the run-time table."""
SEGMENT_COLUMNS = 7
"""point a (3), point b (3), strength of a muscle segment in the run-time table."""
CONFIG = {
    "E": "int", "items": "int", "substeps": "int", "interval": "int", "contacts": "int", "segments": "int", "limit": "int",
    "pool_rows": "int", "dt": "const float*", "contact_link": "const int*", "contact_data": "const float*", "segment_index": "const int*",
    "segment_data": "const float*", "steps": "int*", "resets": "int*", "exploded": "int*", "dropped": "int*", "pool": "const float*",
    "pool_obs": "const float*",
}  # fmt: skip
"""Name and C type of each 64-bit number in the table that both kernels read, in its order; the bridge fills it by these names."""

_TABLE = "\n".join(f" {kind} const {name}=({kind})((const long long*)config_)[{i}];" for i, (name, kind) in enumerate(CONFIG.items()))


def _text(name: str) -> str:
    return (Path(__file__).parent / "kernels" / name).read_text()


PRELUDE = {"cpu": _text("cpu.h"), "cuda": _text("cuda.h")}
"""Kind of device -> what the frames are written with."""

_LAYOUT = _text("layout.h").replace("@TABLE@", _TABLE)

FRAMES = tuple(_text(name).replace("@LAYOUT@", _LAYOUT) for name in ("forward.cpp", "backward.cpp"))
"""The forward and the backward kernel, with room for the traced parts."""


def trajectory_items(rules: StepRules, substeps: int, interval: int) -> int:
    """Count the items of one pack's trajectory of a control step: W floats each, in the order of `kernels/layout.h`."""
    m = rules.model
    updates = -(-substeps // interval)
    per_substep = substeps * (m.nq + 2 * m.nd) + m.nq + m.nd
    return per_substep + updates * len(m.mass_entries) + m.nd + len(m.muscles) + 2 * rules.action_dim + 1


_GLOBAL = {"q", "qd", "qdd", "u", "next_q", "next_qd", "q0", "d0", "q1", "d1"}
"""Arrays of the trajectory; every other input is a local array of the kernel."""


def _load(name: str, index: int) -> str:
    if name == "dt":
        return "DT"
    if name == "c":
        return f"F(c[{index}])"
    if name == "activation":
        return "AT(activation,muscle)"
    return f"AT({name},{index})" if name in _GLOBAL else f"{name}[{index}]"


def _stores(target: str, values: Sequence[Number], *, accumulate: bool = False) -> list[Store]:
    form = "AT({},{})" if target in _GLOBAL else "{}[{}]"
    return [Store(form.format(target, i), v, accumulate) for i, v in enumerate(values)]


def _emit(graph: Graph, stages: Sequence[Sequence[Store] | str], prefix: str) -> str:
    return "{\n" + emit(graph, stages, _load, prefix) + "\n}"


def kernel_sources(rules: StepRules, *, width: int, cuda: bool) -> tuple[str, str]:
    """Write the C++ bodies of the forward and the backward kernel.

    Args:
        rules: what they compute.
        width: environments per pack.
        cuda: whether they are for a GPU.

    Raises:
        ValueError: `actuate` or `observe` gives another number of values than the model or obs_dim takes.
    """
    m = rules.model
    size = {
        "NQ": m.nq, "ND": m.nd, "NA": rules.action_dim, "NO": rules.obs_dim, "NM": len(m.muscles), "NB": len(m.touched),
        "NH": len(m.mass_entries), "NS": m.nq + m.nd, "W": width, "POSE": rb.POSE, "EXTENT": f"{EXTENT}f",
    }  # fmt: skip
    prelude = "".join(f"#define {name} {value}\n" for name, value in size.items()) + PRELUDE["cuda" if cuda else "cpu"]
    undo = "".join(f"#undef {name}\n" for name in size)
    parts = {**_forward_parts(rules), **_backward_parts(rules)}
    texts = []
    for frame in FRAMES:
        for name, text in parts.items():
            frame = frame.replace(f"@{name}@", text)
        texts.append(prelude + frame + undo)
    return texts[0], texts[1]


class _Substep:
    """The traced substep up to tau, shared by both kernels."""

    def __init__(self, model: Model):
        g = self.graph = Graph()
        self.q, self.qd, self.u = g.inputs("q", model.nq), g.inputs("qd", model.nd), g.inputs("u", model.nd)
        self.external = g.inputs("X", 6 * len(model.touched))
        frames = rb.forward_kinematics(model, self.q)
        motion = rb.link_motion(model, frames, self.qd)
        self.poses = [x for i in model.touched for x in rb.pose_of(frames, motion, i)]
        wrenches = rb.inertial_wrenches(model, frames, motion)
        for slot, link in enumerate(model.touched):  # what the loops over contacts and muscles have added up
            e = self.external[6 * slot : 6 * slot + 6]
            wrenches[link] = (vadd(wrenches[link][0], e[:3]), vadd(wrenches[link][1], e[3:]))
        self.tau = rb.joint_forces(model, frames, self.q, self.qd, wrenches, self.u)
        values = g.inputs("L", len(model.mass_entries))
        self.factor = dict(zip(model.mass_entries, values, strict=True))
        self.dt = g.input("dt")


def _forward_parts(rules: StepRules) -> dict[str, str]:
    model = rules.model
    mass = Graph()
    factor = rb.factorise(model, rb.mass_matrix(model, rb.forward_kinematics(model, mass.inputs("q", model.nq))))
    step = _Substep(model)
    g = step.graph
    qdd = rb.solve(model, step.factor, step.tau)
    next_q, next_qd = rb.integrate(model, step.q, step.qd, qdd, step.dt)
    outputs = _stores("qdd", [g.lift(x) for x in qdd]) + _stores("next_q", next_q) + _stores("next_qd", next_qd)
    loops = _loops(model, False)
    substep = [_stores("P", step.poses), loops, outputs] if loops else [outputs]
    return {
        "MASS": _emit(mass, [_stores("L", [factor[e] for e in model.mass_entries])], "m"),
        "SUBSTEP": _emit(g, substep, "s"),
        "ACTUATE": _actuate(rules, False),
        "FINISH": _finish(rules, False),
    }


def _backward_parts(rules: StepRules) -> dict[str, str]:
    model = rules.model
    step = _Substep(model)
    g = step.graph
    qdd = g.inputs("qdd", model.nd)
    end = rb.integrate(model, step.q, step.qd, qdd, step.dt)
    seeds = g.inputs("gq", model.nq) + g.inputs("gd", model.nd)
    through = reverse(g, [*end[0], *end[1]], seeds, [*step.q, *step.qd, *qdd])
    g_qdd = through[model.nq + model.nd :]
    g_tau = [g.lift(x) for x in rb.solve(model, step.factor, g_qdd)]
    g_external = reverse(g, step.tau, g_tau, step.external)
    g_poses = g.inputs("GP", len(step.poses))
    wrt = [*step.q, *step.qd, *step.u]
    gradient = reverse(g, [*step.tau, *step.poses], [*g_tau, *g_poses], wrt)
    total = [a + b for a, b in zip(gradient[: model.nq + model.nd], through, strict=False)]
    # H qdd = tau: the adjoint of H is -g_tau qdd^T; one entry stands for both halves of the symmetric matrix.
    g_mass = []
    for i, j in model.mass_entries:
        both = g_tau[i] * qdd[i] if i == j else g_tau[i] * qdd[j] + g_tau[j] * qdd[i]
        g_mass.append(-g.lift(both))
    outputs = _stores("gq", total[: model.nq]) + _stores("gd", total[model.nq :])
    outputs += _stores("gu", gradient[model.nq + model.nd :], accumulate=True) + _stores("gH", g_mass, accumulate=True)
    loops = _loops(model, True)
    stages = [_stores("P", step.poses) + _stores("GX", g_external), loops, outputs] if loops else [outputs]

    mass = Graph()
    q = mass.inputs("q", model.nq)
    entries = rb.mass_matrix(model, rb.forward_kinematics(model, q))
    seeds = mass.inputs("gH", len(model.mass_entries))
    g_q = reverse(mass, [mass.lift(entries[e]) for e in model.mass_entries], seeds, q)
    return {
        "SUBSTEP_ADJOINT": _emit(g, stages, "s"),
        "MASS_ADJOINT": _emit(mass, [_stores("gq", g_q, accumulate=True)], "m"),
        "ACTUATE_ADJOINT": _actuate(rules, True),
        "FINISH_ADJOINT": _finish(rules, True),
    }


def _loops(model: Model, backward: bool) -> str:
    return (_contact_loop(backward) if model.contacts else "") + (_muscle_loop(backward) if model.muscles else "")


def _contact_loop(backward: bool) -> str:
    """For each contact: X += wrench; backward also GP += its adjoint. Skipped where no environment of the pack touches the ground."""
    g = Graph()
    pose, c = g.inputs("p", rb.POSE), g.inputs("c", CONTACT_COLUMNS)
    depth = rb.contact_depth(pose, c[:3], c[3])
    wrench = rb.contact_wrench(pose, c[:3], *c[3:])
    stores = _stores("x", wrench, accumulate=True)
    if backward:
        stores += _stores("gp", reverse(g, wrench, g.inputs("gx", 6), pose), accumulate=True)
    body = emit(g, [[Store("const F depth", depth)], "if(!ANY_NEGATIVE(depth))continue;", stores], _load, "c")
    pointers = "const F*p=P+POSE*b;F*x=X+6*b;" + ("F*gp=GP+POSE*b;const F*gx=GX+6*b;" if backward else "")
    head = f"const int b=contact_link[k];const float*c=contact_data+{CONTACT_COLUMNS}*k;"
    return f"for(int k=0;k<contacts;++k){{{head}{pointers}\n{body}\n}}\n"


def _muscle_loop(backward: bool) -> str:
    """For each segment: X += wrenches on its two links; backward also the adjoints of both poses and of the activation."""
    g = Graph()
    pose_a, pose_b, c = g.inputs("pa", rb.POSE), g.inputs("pb", rb.POSE), g.inputs("c", SEGMENT_COLUMNS)
    activation = g.input("activation")
    on_a, on_b = rb.segment_wrenches(pose_a, pose_b, c[:3], c[3:6], activation * c[6])
    stores = _stores("xa", on_a, accumulate=True) + _stores("xb", on_b, accumulate=True)
    if backward:
        seeds = g.inputs("gxa", 6) + g.inputs("gxb", 6)
        adjoint = reverse(g, [*on_a, *on_b], seeds, [*pose_a, *pose_b, activation])
        stores += _stores("gpa", adjoint[: rb.POSE], accumulate=True) + _stores("gpb", adjoint[rb.POSE : -1], accumulate=True)
        stores.append(Store("gactivation[muscle]", adjoint[-1], True))
    body = emit(g, [stores], _load, "s")
    pointers = "const F*pa=P+POSE*a,*pb=P+POSE*b;F*xa=X+6*a,*xb=X+6*b;"
    if backward:
        pointers += "F*gpa=GP+POSE*a,*gpb=GP+POSE*b;const F*gxa=GX+6*a,*gxb=GX+6*b;"
    head = "const int muscle=segment_index[3*k],a=segment_index[3*k+1],b=segment_index[3*k+2];"
    return f"for(int k=0;k<segments;++k){{{head}const float*c=segment_data+{SEGMENT_COLUMNS}*k;{pointers}\n{body}\n}}\n"


def _actuate(rules: StepRules, backward: bool) -> str:
    g = Graph()
    action = g.inputs("a", rules.action_dim)
    joints, muscles = rules.actuate(action)
    for what, given, count in (("joint forces", joints, rules.model.nd), ("muscle activations", muscles, len(rules.model.muscles))):
        if len(given) != count:
            raise ValueError(f"{rules.model.name}: actuate() gives {len(given)} {what}, the model takes {count}")
    outputs = [g.lift(x) for x in (*joints, *muscles)]
    nd = rules.model.nd
    if not backward:
        stores = _stores("u", outputs[:nd])
        stores += [Store(f"AT(activation,{i})", x) for i, x in enumerate(outputs[nd:])]
        return _emit(g, [stores], "u")
    seeds = [*g.inputs("gu", nd), *g.inputs("gactivation", len(muscles))]
    return _emit(g, [_stores("ga", reverse(g, outputs, seeds, action), accumulate=True)], "u")


def _finish(rules: StepRules, backward: bool) -> str:
    """Observation, reward and termination margin at the end of the control step; q0, d0 are where it began, q1, d1 where it ended."""
    g, m = Graph(), rules.model
    q0, d0, q1, d1 = g.inputs("q0", m.nq), g.inputs("d0", m.nd), g.inputs("q1", m.nq), g.inputs("d1", m.nd)
    action = g.inputs("a", rules.action_dim)
    observation = [g.lift(x) for x in rules.observe(q1, d1, action)]
    if len(observation) != rules.obs_dim:
        raise ValueError(f"{m.name}: observe() gives {len(observation)} numbers, obs_dim is {rules.obs_dim}")
    reward = g.lift(rules.reward(q0, d0, action, q1, d1))
    if not backward:
        stores = [*_stores("ob", observation), Store("rw", reward), Store("margin", g.lift(rules.margin(q1, d1)))]
        return _emit(g, [stores], "f")
    seeds = [*g.inputs("gob", rules.obs_dim), g.input("grw")]
    adjoint = reverse(g, [*observation, reward], seeds, [*q0, *d0, *q1, *d1, *action])
    stores, at = [], 0
    for target, count in (("gq0", m.nq), ("gd0", m.nd), ("gq", m.nq), ("gd", m.nd), ("ga", rules.action_dim)):
        stores += _stores(target, adjoint[at : at + count], accumulate=True)
        at += count
    return _emit(g, [stores], "f")
