"""Load an MJCF file as a `Model`: the joints, geoms and motors that our own models use. MuJoCo's compiler resolves classes and defaults.

MuJoCo's z axis points up; the links below the world are turned so that y is up here. What has no counterpart is refused by name.
"""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from .model import UP, Joint, Link, Material, Model, Quaternion
from .scalars import quaternion_matrix, quaternion_product
from .shapes import Box, Capsule, MassProperties, Point, Shape, Sphere

__all__ = ["LoadedModel", "UnsupportedMJCF", "load_mjcf"]

_ZERO = {
    "BODY": {"body_gravcomp": "gravcomp"},
    "GEOM": {"geom_surfacevel": "surfacevel", "geom_adhesion": "adhesion"},
    "JOINT": {"jnt_stiffnesspoly": "nonlinear stiffness", "dof_dampingpoly": "nonlinear damping", "dof_frictionloss": "frictionloss"},
    "ACTUATOR": {"actuator_armature": "armature", "actuator_damping": "damping", "actuator_delay": "delay"},
}
"""Kind of element -> MuJoCo's arrays that must hold zeros, and what the file calls them."""
_KINDS = ("free", "ball", "slide", "hinge")  # of joints, by MuJoCo's number
_FLAGS = ("ACTUATION", "CLAMPCTRL", "CONSTRAINT", "CONTACT", "DAMPER", "GRAVITY", "LIMIT", "SPRING")
"""What an option flag would switch off."""


class UnsupportedMJCF(ValueError):
    """The file uses an element that the simulator has no counterpart for; the message names it."""


@dataclass(frozen=True)
class LoadedModel:
    """What an MJCF file describes."""

    model: Model
    motors: tuple[tuple[str, str, float], ...]
    """(name, link, N m or N at action 1, the upper end of the ctrlrange) in the file's order."""
    start: np.ndarray
    """q of the file's reference pose, [nq], in which every hinge and slide is 0 (MuJoCo's qpos minus ref)."""


def load_mjcf(
    path: str | Path, *, material: Material | None = None, limit_stiffness: float = 1e3, limit_damping: float = 10.0
) -> LoadedModel:
    """Read an MJCF file.

    docs/simulator.md lists what is honoured, refused and ignored. Masses and inertias are MuJoCo's.

    Args:
        path: the file.
        material: of the contacts; MuJoCo's contact parameters have no equivalent.
        limit_stiffness: of the springs at the ends of a range; joints without a range get none.
        limit_damping: as limit_stiffness.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: MuJoCo is not installed.
        UnsupportedMJCF: the file has an element without a counterpart; the error names both.
        ValueError: MuJoCo cannot read the file.
    """
    try:
        mujoco = importlib.import_module("mujoco")
    except ImportError as error:
        raise ImportError("load_mjcf needs MuJoCo: pip install mujoco") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"load_mjcf: no such file: {path}")
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        _refuse_elements(spec, path)
        compiled = spec.compile()
    except UnsupportedMJCF:
        raise
    except ValueError as error:
        raise ValueError(f"load_mjcf: MuJoCo cannot read {path}: {error}") from error
    reader = _Reader(mujoco, compiled, str(path), {"limit_stiffness": limit_stiffness, "limit_damping": limit_damping})
    reader.check()
    links = [link for body in range(1, compiled.nbody) for link in reader.body_links(body)]
    model = Model(Path(path).stem, tuple(links), material or Material(), gravity=float(-compiled.opt.gravity[2]))
    return LoadedModel(model, tuple(reader.motors()), reader.start(model))


def _refuse_elements(spec: Any, path: str | Path) -> None:
    first = re.search(rb"<(\w+)", re.sub(rb"(?s)<!--.*?-->", b"", Path(path).read_bytes()))
    if first is not None and (root := first[1].decode()) != "mujoco":
        raise UnsupportedMJCF(f"load_mjcf: {path}: its root element is {root!r}, expected 'mujoco' (MuJoCo itself converts URDF)")
    for kind in ("tendons", "equalities", "flexes", "skins", "pairs", "plugins"):
        if found := list(getattr(spec, kind, [])):
            raise UnsupportedMJCF(f"load_mjcf: {path}: {kind} are not supported, found {found[0].name or 'an unnamed one'!r}")
    for exclude in spec.excludes:
        if "world" in (names := (exclude.bodyname1, exclude.bodyname2)):
            raise UnsupportedMJCF(
                f"load_mjcf: {path}: exclude of {' and '.join(map(repr, names))}: give the geoms contype and conaffinity instead"
            )


class _Reader:
    def __init__(self, mujoco: Any, compiled: Any, path: str, limits: dict[str, float]):
        self.mj, self.m, self.path, self.limits = mujoco, compiled, path, limits
        self.link_of_joint: dict[int, str] = {}
        self.last_link: dict[int, str] = {}  # body -> the link that carries its geoms and children
        self.anchor = {0: np.zeros(3)}  # body -> origin of that link in the body's own frame
        self.floors: list[int] = []  # geoms that are the ground

    def name(self, kind: str, i: int) -> str:
        return self.mj.mj_id2name(self.m, getattr(self.mj.mjtObj, f"mjOBJ_{kind}"), i) or f"{kind.lower()}_{i}"

    def refuse(self, what: str, kind: str = "", i: int = 0) -> UnsupportedMJCF:
        """Make the error that says what is wrong with the i-th element of a kind."""
        where = f"{kind.lower()} {self.name(kind, i)!r}: " if kind else ""
        return UnsupportedMJCF(f"load_mjcf: {self.path}: {where}{what}")

    def check(self) -> None:
        """Refuse what no link, joint or motor stands for; find the ground."""
        m = self.m
        if not m.nv:
            raise self.refuse("no body has a joint, so nothing moves")
        for name in ("density", "viscosity", "wind"):
            if np.any(value := getattr(m.opt, name)):
                raise self.refuse(f"option {name}={value}: there is no fluid")
        if np.any(m.opt.gravity[:2]):
            raise self.refuse(f"option gravity={m.opt.gravity}: it must be along the z axis")
        if m.opt.disableactuator:
            raise self.refuse("option actuatorgroupdisable is not supported")
        for flag in _FLAGS:
            if m.opt.disableflags & getattr(self.mj.mjtDisableBit, f"mjDSBL_{flag}"):
                raise self.refuse(f"option flag {flag.lower()}='disable' is not supported")
        for kind, arrays in _ZERO.items():
            for array, word in arrays.items():
                for i in np.flatnonzero([np.any(value) for value in getattr(m, array, ())]):
                    raise self.refuse(f"{word} is not supported", kind, m.dof_jntid[i] if array.startswith("dof_") else int(i))
        for body in np.flatnonzero(m.body_mocapid >= 0):
            raise self.refuse("mocap is not supported", "BODY", int(body))
        self._find_floors()

    def _find_floors(self) -> None:
        m, data = self.m, self.mj.MjData(self.m)
        self.mj.mj_kinematics(m, data)
        carrying = {0}  # the world, and bodies without a joint that carry one that moves: those are a robot's base
        bases = {int(m.body_parentid[b]) for b in range(1, m.nbody) if m.body_weldid[b] and not m.body_weldid[m.body_parentid[b]]}
        while bases - carrying:
            carrying |= bases
            bases = {int(m.body_parentid[b]) for b in bases}
        for g in range(m.ngeom):
            body = m.geom_bodyid[g]
            if m.body_weldid[body] or not (m.geom_contype[g] or m.geom_conaffinity[g]):
                continue
            if m.geom_type[g] == self.mj.mjtGeom.mjGEOM_PLANE:
                normal, height = data.geom_xmat[g].reshape(3, 3)[:, 2], data.geom_xpos[g, 2]
                if not np.allclose(normal, (0, 0, 1), atol=1e-9) or abs(height) > 1e-9:
                    raise self.refuse(
                        f"a floor at height {height:g} with normal {np.round(normal, 4)}; it must be the plane z = 0", "GEOM", g
                    )
                self.floors.append(g)
            elif body == 0 or int(body) not in carrying:
                raise self.refuse("an obstacle; the plane z = 0 is all that bodies collide with", "GEOM", g)

    def body_links(self, body: int) -> list[Link]:
        m, label, parent = self.m, self.name("BODY", body), int(self.m.body_parentid[body])
        joints = cast(list[Any], [*range(m.body_jntadr[body], m.body_jntadr[body] + m.body_jntnum[body])] or [None])
        links, shift, rotation = [], np.zeros(3), _xyzw(m.body_quat[body])
        above = None if parent == 0 else self.last_link[parent]
        for n, j in enumerate(joints):
            kind, last = _KINDS[m.jnt_type[j]] if m.body_jntnum[body] else "fixed", n == len(joints) - 1
            if kind == "free" and (len(joints) > 1 or parent != 0):
                raise self.refuse("a free joint must be alone, on a child of the world", "JOINT", j)
            name = label if last else f"{label}/{self.name('JOINT', j)}"
            anchor = m.jnt_pos[j].copy() if kind in ("ball", "hinge") else np.zeros(3)
            position, turn = self._placed(body, parent, n == 0, anchor - shift, rotation)
            joint = Joint("fixed", position, turn) if j is None else self._joint(j, kind, position, turn)
            links.append(Link(name, joint, above, *self._content(body, anchor, last)))
            shift, above = anchor, name
            if j is not None:
                self.link_of_joint[j] = name
        self.last_link[body], self.anchor[body] = label, shift
        return links

    def _placed(self, body: int, parent: int, first: bool, offset: np.ndarray, rotation: Quaternion) -> tuple[Point, Quaternion]:
        """Position and rotation of a joint frame in the link above it."""
        if not first:
            return _point(offset), (0.0, 0.0, 0.0, 1.0)
        position = self.m.body_pos[body] + _matrix(rotation) @ offset - self.anchor[parent]
        if parent != 0:
            return _point(position), rotation
        x, y, z, w = map(float, quaternion_product(UP, rotation))
        return _point(_matrix(UP) @ position), (x, y, z, w)

    def _joint(self, j: int, kind: str, position: Point, rotation: Quaternion) -> Joint:
        m, dof, at, limited = self.m, self.m.jnt_dofadr[j], self.m.jnt_qposadr[j], bool(self.m.jnt_limited[j])
        if kind == "free":
            if m.jnt_stiffness[j] or m.dof_damping[dof] or m.dof_armature[dof]:
                raise self.refuse("stiffness, damping and armature of a free joint are not supported", "JOINT", j)
            return Joint("free")
        if kind == "ball" and (limited or m.jnt_stiffness[j]):
            raise self.refuse(f"{'limits' if limited else 'stiffness'} of ball joints are not supported", "JOINT", j)
        zero = float(m.qpos0[at]) if kind != "ball" else 0.0
        low, high = (float(x) - zero for x in m.jnt_range[j]) if limited else (None, None)
        target = float(m.qpos_spring[at]) - zero if kind != "ball" else 0.0
        limits = self.limits if limited else dict.fromkeys(self.limits, 0.0)
        return Joint(
            kind, position=position, rotation=rotation, axis=_point(m.jnt_axis[j]) if kind != "ball" else (0, 0, 0),
            lower=low, upper=high, stiffness=float(m.jnt_stiffness[j]), damping=float(m.dof_damping[dof]), target=target,
            armature=float(m.dof_armature[dof]), **limits,
        )  # fmt: skip

    def _content(self, body: int, anchor: np.ndarray, last: bool) -> tuple[tuple[Shape, ...], MassProperties, bool]:
        """Shapes and mass of a body, in the frame of its last link, and whether they collide; nothing for the massless links before it.

        A body with shapes that collide is left with those; another one keeps its shapes to be seen.
        """
        m = self.m
        if not last:
            return (), MassProperties(0.0, np.zeros(3), np.zeros((3, 3))), False
        geoms = [g for g in range(m.ngeom) if m.geom_bodyid[g] == body]
        found = {g: shape for g in geoms if (shape := self._shape(g, anchor)) is not None}
        kinds, others = m.geom_contype, m.geom_conaffinity
        landing = [shape for g, shape in found.items() if any(kinds[g] & others[f] or kinds[f] & others[g] for f in self.floors)]
        shapes = landing or list(found.values())
        turn = _matrix(_xyzw(m.body_iquat[body]))
        inertia = turn @ np.diag(m.body_inertia[body]) @ turn.T
        mass = MassProperties(float(m.body_mass[body]), m.body_ipos[body] - anchor, inertia)
        return tuple(shapes), mass, bool(landing) and m.body_weldid[body] != 0

    def _shape(self, g: int, anchor: np.ndarray) -> Shape | None:
        """The geom's shape; None for one that collides with nothing and has no counterpart."""
        m, kinds = self.m, self.mj.mjtGeom
        center, turn, size = m.geom_pos[g] - anchor, _matrix(_xyzw(m.geom_quat[g])), m.geom_size[g]
        kind = kinds(int(m.geom_type[g])).name.removeprefix("mjGEOM_").lower()
        if kind == "sphere":
            return Sphere(_point(center), float(size[0]))
        if kind == "capsule":
            along = turn[:, 2] * size[1]
            return Capsule(_point(center - along), _point(center + along), float(size[0]))
        if kind == "box":
            if np.allclose(np.abs(turn).max(0), 1, atol=1e-6):
                return Box(_point(center), _point(np.abs(turn) @ size))
            kind = "box that is turned against its body"
        if not (m.geom_contype[g] or m.geom_conaffinity[g]):
            return None
        raise self.refuse(f"a {kind} is not supported; sphere, capsule and upright box are", "GEOM", g)

    def motors(self) -> list[tuple[str, str, float]]:
        m, mj, found, totals = self.m, self.mj, [], np.zeros(self.m.njnt)
        motor = mj.mjtTrn.mjTRN_JOINT, mj.mjtGain.mjGAIN_FIXED, mj.mjtBias.mjBIAS_NONE, mj.mjtDyn.mjDYN_NONE
        for a in range(m.nu):
            if (m.actuator_trntype[a], m.actuator_gaintype[a], m.actuator_biastype[a], m.actuator_dyntype[a]) != motor:
                raise self.refuse("only motors on joints are supported", "ACTUATOR", a)
            joint = int(m.actuator_trnid[a, 0])
            if _KINDS[m.jnt_type[joint]] not in ("slide", "hinge"):
                raise self.refuse("motors act on hinges and slides only", "ACTUATOR", a)
            low, high = m.actuator_ctrlrange[a] if m.actuator_ctrllimited[a] else (-1.0, 1.0)
            if low != -high:
                raise self.refuse(f"ctrlrange {low:g} {high:g} is not symmetric about 0", "ACTUATOR", a)
            force = float(m.actuator_gainprm[a, 0] * high)
            if m.actuator_forcelimited[a] and not _allows(m.actuator_forcerange[a], force):
                raise self.refuse(f"forcerange {m.actuator_forcerange[a]} cuts off its {abs(force):g} at full control", "ACTUATOR", a)
            torque = float(m.actuator_gear[a, 0] * force)
            totals[joint] += abs(torque)
            found.append((self.name("ACTUATOR", a), self.link_of_joint[joint], torque))
        for j, total in enumerate(totals):
            if m.jnt_actfrclimited[j] and not _allows(m.jnt_actfrcrange[j], total):
                raise self.refuse(f"actuatorfrcrange {m.jnt_actfrcrange[j]} cuts off {total:g} of its motors", "JOINT", j)
        return found

    def start(self, model: Model) -> np.ndarray:
        """Write MuJoCo's reference pose as q."""
        q, m = np.zeros(model.nq), self.m
        for j, name in self.link_of_joint.items():
            i, at = model.index[name], int(m.jnt_qposadr[j])
            start, kind = model.q_start[i], model.links[i].joint.kind
            if kind == "free":
                q[start : start + 3] = _matrix(UP) @ m.qpos0[at : at + 3]
                q[start + 3 : start + 7] = quaternion_product(UP, _xyzw(m.qpos0[at + 3 : at + 7]))
            elif kind == "ball":
                q[start : start + 4] = _xyzw(m.qpos0[at : at + 4])
        return q


def _xyzw(wxyz: np.ndarray) -> Quaternion:
    w, x, y, z = wxyz.tolist()
    return x, y, z, w


def _matrix(quaternion: Quaternion) -> np.ndarray:
    return np.array(quaternion_matrix(quaternion), float)


def _point(v: np.ndarray) -> Point:
    x, y, z = v.tolist()
    return x, y, z


def _allows(limits: np.ndarray, size: float) -> bool:
    return limits[0] <= -abs(size) and abs(size) <= limits[1]
