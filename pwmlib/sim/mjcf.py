"""Load an MJCF file as a `Model`: the joints, geoms and motors that our own models use. MuJoCo's compiler resolves classes and defaults.

MuJoCo's z axis points up; the links below the world are turned so that y is up here. What has no counterpart is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .model import Joint, Link, Material, Model
from .scalars import quaternion_matrix, quaternion_product
from .shapes import Box, Capsule, MassProperties, Shape, Sphere

if TYPE_CHECKING:
    import mujoco

__all__ = ["LoadedModel", "UnsupportedMJCF", "load_mjcf"]

_UP = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))


class UnsupportedMJCF(ValueError):
    """The file uses an element that the simulator has no counterpart for; the message names it."""


@dataclass(frozen=True)
class LoadedModel:
    """model; motors: (name, link, N m or N at control 1) in the file's order; start: q of the file's reference pose."""

    model: Model
    motors: tuple[tuple[str, str, float], ...]
    start: np.ndarray


def load_mjcf(
    path: str | Path, *, material: Material | None = None, limit_stiffness: float = 1e3, limit_damping: float = 10.0
) -> LoadedModel:
    """Read an MJCF file.

    Supported: bodies with free (alone, at a child of the world), ball, hinge and slide joints with range, stiffness, damping and
    armature; sphere, capsule and box geoms (planes of the world are the ground); motors on joints. Masses and inertias are MuJoCo's.
    A contact material is ours: MuJoCo's contact parameters have no equivalent.
    Raises: FileNotFoundError; ValueError where MuJoCo cannot read the file; UnsupportedMJCF.
    """
    try:
        import mujoco
    except ImportError as error:
        raise ImportError("load_mjcf needs MuJoCo: pip install mujoco") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"load_mjcf: no such file: {path}")
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        _refuse_elements(spec, path)
        compiled = spec.compile()
    except ValueError as error:
        if isinstance(error, UnsupportedMJCF):
            raise
        raise ValueError(f"load_mjcf: MuJoCo cannot read {path}: {error}") from error
    reader = _Reader(mujoco, compiled, str(path), {"limit_stiffness": limit_stiffness, "limit_damping": limit_damping})
    model = Model(Path(path).stem, tuple(reader.links()), material or Material(), gravity=float(-compiled.opt.gravity[2]))
    return LoadedModel(model, tuple(reader.motors()), reader.start(model))


def _refuse_elements(spec: mujoco.MjSpec, path: str | Path) -> None:
    for kind in ("tendons", "equalities", "flexes", "skins", "pairs"):
        found = list(getattr(spec, kind, []))
        if found:
            raise UnsupportedMJCF(f"load_mjcf: {path}: {kind} are not supported, found {found[0].name or 'an unnamed one'!r}")


class _Reader:
    def __init__(self, mujoco: Any, compiled: Any, path: str, limits: dict[str, float]):
        self.mj, self.m, self.path, self.limits = mujoco, compiled, path, limits
        self.link_of_joint: dict[int, str] = {}
        self.last_link: dict[int, str] = {}
        """Body -> the link that carries its geoms and children."""
        self.anchor: dict[int, np.ndarray] = {0: np.zeros(3)}
        """Body -> origin of that link in the body's own frame."""

    def name(self, kind: str, i: int) -> str:
        return self.mj.mj_id2name(self.m, getattr(self.mj.mjtObj, f"mjOBJ_{kind}"), i) or f"{kind.lower()}_{i}"

    def refuse(self, what: str) -> UnsupportedMJCF:
        return UnsupportedMJCF(f"load_mjcf: {self.path}: {what}")

    def links(self) -> list[Link]:
        links: list[Link] = []
        for body in range(1, self.m.nbody):
            links += self.body_links(body)
        return links

    def body_links(self, body: int) -> list[Link]:
        m, label, parent = self.m, self.name("BODY", body), int(self.m.body_parentid[body])
        joints = range(m.body_jntadr[body], m.body_jntadr[body] + m.body_jntnum[body])
        kinds = ["free", "ball", "slide", "hinge"]
        links, shift, rotation = [], np.zeros(3), _xyzw(m.body_quat[body])
        above = None if parent == 0 else self.last_link[parent]
        for n, j in enumerate(joints):
            kind, last = kinds[m.jnt_type[j]], n == len(joints) - 1
            if kind == "free" and (len(joints) > 1 or parent != 0):
                raise self.refuse(f"joint {self.name('JOINT', j)!r}: a free joint must be alone, on a child of the world")
            name = label if last else f"{label}/{self.name('JOINT', j)}"
            anchor = np.zeros(3) if kind in ("free", "slide") else m.jnt_pos[j].copy()
            position, turn = self._placed(body, parent, n == 0, anchor - shift, rotation)
            links.append(Link(name, self._joint(j, kind, position, turn), above, *self._content(body, anchor, last)))
            shift, above, self.link_of_joint[j] = anchor, name, name
        if not joints:
            position, turn = self._placed(body, parent, True, np.zeros(3), rotation)
            links.append(Link(label, Joint("fixed", position=position, rotation=turn), above, *self._content(body, shift, True)))
        self.last_link[body], self.anchor[body] = label, shift
        return links

    def _placed(self, body: int, parent: int, first: bool, offset: np.ndarray, rotation: tuple) -> tuple[tuple, tuple]:
        """Position and rotation of a joint frame in the link above it."""
        if not first:
            return tuple(offset.tolist()), (0.0, 0.0, 0.0, 1.0)
        turned = _rotate(rotation, offset)
        position = self.m.body_pos[body] + turned - self.anchor[parent]
        if parent == 0:
            return tuple(_rotate(_UP, position).tolist()), tuple(quaternion_product(_UP, rotation))
        return tuple(position.tolist()), rotation

    def _joint(self, j: int, kind: str, position: tuple, rotation: tuple) -> Joint:
        m = self.m
        if kind == "free":
            return Joint("free")
        dof, limited = m.jnt_dofadr[j], bool(m.jnt_limited[j])
        if kind == "ball" and limited:
            raise self.refuse(f"joint {self.name('JOINT', j)!r}: limits of ball joints are not supported")
        if m.dof_frictionloss[dof] > 0:
            raise self.refuse(f"joint {self.name('JOINT', j)!r}: frictionloss is not supported")
        low, high = (float(x) for x in m.jnt_range[j]) if limited else (None, None)
        target = float(m.qpos_spring[m.jnt_qposadr[j]]) if kind != "ball" else 0.0
        return Joint(
            kind, position=position, rotation=rotation, axis=tuple(m.jnt_axis[j].tolist()) if kind != "ball" else (0, 0, 0),
            lower=low, upper=high, stiffness=float(m.jnt_stiffness[j]), damping=float(m.dof_damping[dof]), target=target,
            armature=float(m.dof_armature[dof]), **self.limits,
        )  # fmt: skip

    def _content(self, body: int, anchor: np.ndarray, last: bool) -> tuple[tuple[Shape, ...], MassProperties]:
        """Shapes and mass of a body, in the frame of its last link; nothing for the massless links before it."""
        m = self.m
        if not last:
            return (), MassProperties(0.0, np.zeros(3), np.zeros((3, 3)))
        shapes = [self._shape(g, anchor) for g in range(m.ngeom) if m.geom_bodyid[g] == body]
        turn = _matrix(_xyzw(m.body_iquat[body]))
        inertia = turn @ np.diag(m.body_inertia[body]) @ turn.T
        return tuple(shapes), MassProperties(float(m.body_mass[body]), m.body_ipos[body] - anchor, inertia)

    def _shape(self, g: int, anchor: np.ndarray) -> Shape:
        m, kinds = self.m, self.mj.mjtGeom
        center, turn, size = m.geom_pos[g] - anchor, _matrix(_xyzw(m.geom_quat[g])), m.geom_size[g]
        if m.geom_type[g] == kinds.mjGEOM_SPHERE:
            return Sphere(tuple(center.tolist()), float(size[0]))
        if m.geom_type[g] == kinds.mjGEOM_CAPSULE:
            along = turn[:, 2] * size[1]
            return Capsule(tuple((center - along).tolist()), tuple((center + along).tolist()), float(size[0]))
        if m.geom_type[g] == kinds.mjGEOM_BOX and np.allclose(np.abs(turn).max(0), 1, atol=1e-6):
            return Box(tuple(center.tolist()), tuple((np.abs(turn) @ size).tolist()))
        kind = kinds(int(m.geom_type[g])).name.removeprefix("mjGEOM_").lower()
        note = " that is turned against its body" if kind == "box" else ""
        raise self.refuse(f"geom {self.name('GEOM', g)!r}: a {kind}{note} is not supported; sphere, capsule and upright box are")

    def motors(self) -> list[tuple[str, str, float]]:
        m, found = self.m, []
        for a in range(m.nu):
            name = self.name("ACTUATOR", a)
            on_joint = m.actuator_trntype[a] == self.mj.mjtTrn.mjTRN_JOINT
            plain = m.actuator_gaintype[a] == self.mj.mjtGain.mjGAIN_FIXED and m.actuator_biastype[a] == self.mj.mjtBias.mjBIAS_NONE
            if not on_joint or not plain or m.actuator_dyntype[a] != self.mj.mjtDyn.mjDYN_NONE:
                raise self.refuse(f"actuator {name!r}: only motors on joints are supported")
            joint = int(m.actuator_trnid[a, 0])
            if m.jnt_type[joint] not in (2, 3):
                raise self.refuse(f"actuator {name!r}: motors act on hinges and slides only")
            found.append((name, self.link_of_joint[joint], float(m.actuator_gear[a, 0] * m.actuator_gainprm[a, 0])))
        return found

    def start(self, model: Model) -> np.ndarray:
        """q of MuJoCo's reference pose."""
        q, m = np.zeros(model.nq), self.m
        for j, name in self.link_of_joint.items():
            i, at = model.index[name], int(m.jnt_qposadr[j])
            start, kind = model.q_start[i], model.links[i].joint.kind
            if kind == "free":
                q[start : start + 3] = _rotate(_UP, m.qpos0[at : at + 3])
                q[start + 3 : start + 7] = quaternion_product(_UP, _xyzw(m.qpos0[at + 3 : at + 7]))
            elif kind == "ball":
                q[start : start + 4] = _xyzw(m.qpos0[at : at + 4])
            else:
                q[start] = m.qpos0[at]
        return q


def _xyzw(wxyz: np.ndarray) -> tuple[float, float, float, float]:
    w, x, y, z = (float(v) for v in wxyz)
    return x, y, z, w


def _matrix(quaternion: tuple) -> np.ndarray:
    return np.array(quaternion_matrix(quaternion), float)


def _rotate(quaternion: tuple, v: np.ndarray) -> np.ndarray:
    return _matrix(quaternion) @ np.asarray(v, float)
