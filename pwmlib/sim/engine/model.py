"""An articulated model as tables: links with their joints, contact points, muscles.

Axes: y is up, gravity along -y. Links are listed parents first. Generalised coordinates q and velocities qd follow the links:

    free   q: position (3), quaternion x y z w (4)    qd: angular velocity (3), velocity of the link's origin (3), world axes
    ball   q: quaternion x y z w (4)                  qd: angular velocity (3), joint frame
    hinge  q: angle [rad]                             qd: its rate
    slide  q: displacement [m]                        qd: its rate
    fixed  nothing
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from pwmlib.errors import one_of

from .scalars import quaternion_matrix
from .shapes import MassProperties, Point, Shape, mass_properties

__all__ = ["COORDINATES", "UP", "Contact", "Joint", "Link", "Material", "Model", "Muscle", "Quaternion"]

Quaternion = tuple[float, float, float, float]
"""x, y, z, w."""
UP: Quaternion = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
"""From z up, as MuJoCo has it and most robots' tables, to the engine's y up."""

COORDINATES = {"free": (7, 6), "ball": (4, 3), "hinge": (1, 1), "slide": (1, 1), "fixed": (0, 0)}
"""Joint type -> how many of q and of qd."""


@dataclass(frozen=True)
class Joint:
    """How a link hangs on its parent. A spring (stiffness toward target), a damper, and limits with a spring of their own.

    position [m], rotation (quaternion x y z w): the joint frame in the parent's frame. axis: of hinge and slide, in the joint frame.
    Units: N m/rad and N m s/rad for hinges, N/m and N s/m for slides. armature is added to the diagonal of the mass matrix.
    limit_damping acts always, not only at the limit (as in dflex). For a ball joint stiffness acts on the vector part of the quaternion.
    """

    kind: str
    position: Point = (0.0, 0.0, 0.0)
    rotation: Quaternion = (0.0, 0.0, 0.0, 1.0)
    axis: Point = (0.0, 0.0, 0.0)
    lower: float | None = None
    upper: float | None = None
    stiffness: float = 0.0
    damping: float = 0.0
    target: float = 0.0
    armature: float = 0.0
    limit_stiffness: float = 1e3
    limit_damping: float = 10.0

    def __post_init__(self) -> None:
        one_of(self.kind, COORDINATES, "Joint: kind")
        if self.kind in ("hinge", "slide") and not np.linalg.norm(self.axis) > 0:
            raise ValueError(f"Joint: a {self.kind} needs an axis, got {self.axis}")


@dataclass(frozen=True)
class Link:
    """A rigid body and the joint that carries it. parent: name of another link, None for the world."""

    name: str
    joint: Joint
    parent: str | None = None
    shapes: tuple[Shape, ...] = ()
    mass: MassProperties | None = None
    """Given: used as it is. None: computed from the shapes."""
    collides: bool = True


@dataclass(frozen=True)
class Material:
    """Contact parameters: ke [N/m], kd [N s/m^2] (times depth), kf [N s/m], mu."""

    ke: float = 2e4
    kd: float = 1e3
    kf: float = 1e3
    mu: float = 0.9

    def scaled(self, stiffness: float) -> Material:
        """Multiply ke and kd by `stiffness`.

        Raises:
            ValueError: stiffness is not positive and finite.
        """
        if not 0 < stiffness < math.inf:
            raise ValueError(f"stiffness must be positive and finite, got {stiffness}")
        return replace(self, ke=self.ke * stiffness, kd=self.kd * stiffness)


@dataclass(frozen=True)
class Contact:
    """A ball of `radius` at `point` of a link, against the ground plane y = 0."""

    link: int
    point: Point
    radius: float


@dataclass(frozen=True)
class Muscle:
    """A line of action through waypoints (link name, point in its frame); strength [N] at activation 1.

    Only the segments between different links pull; there is no force-length-velocity relation and no passive part.
    """

    name: str
    strength: float
    waypoints: tuple[tuple[str, Point], ...]


@dataclass(frozen=True)
class Model:
    """Tables of one robot.

    Raises:
        ValueError: the robot does not hang together, has no joint that moves, or moves no mass; the error names the link.
    """

    name: str
    links: tuple[Link, ...]
    material: Material = field(default_factory=Material)
    muscles: tuple[Muscle, ...] = ()
    gravity: float = 9.81
    exact_inertia: bool = True
    """False computes inertias as dflex does, see `mass_properties`."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for link in self.links:
            if link.name in seen:
                raise self._error(f"two links are called {link.name!r}")
            if link.parent is not None and link.parent not in seen:
                raise self._error(f"link {link.name!r} has parent {link.parent!r}, which is not listed before it")
            if link.parent is not None and link.joint.kind == "free":
                raise self._error(f"link {link.name!r} has a free joint, so its parent must be None")
            seen.add(link.name)
        for muscle in self.muscles:
            for name, _ in muscle.waypoints:
                if name not in seen:
                    raise self._error(f"muscle {muscle.name!r} passes link {name!r}, which does not exist")
        free = [link.name for link in self.links if link.joint.kind == "free"]
        if len(free) > 1:
            raise self._error(f"at most one free joint, got {free}")
        if free and self.links[0].name != free[0]:
            raise self._error(f"the free link {free[0]!r} must come first")
        if not self.nd:
            raise self._error(f"no link has a joint that moves; its links are {[link.name for link in self.links]}")
        carried = [body.mass for body in self.masses]
        for i, (link, body) in reversed(list(enumerate(zip(self.links, self.masses, strict=True)))):
            if not np.isfinite([body.mass, *body.com, *np.ravel(body.inertia)]).all() or body.mass < 0:
                raise self._error(f"link {link.name!r} has impossible mass properties: {body}")
            if COORDINATES[link.joint.kind][1] and carried[i] == 0 and link.joint.armature == 0:
                raise self._error(
                    f"link {link.name!r} moves no mass; give it, or a link that hangs on it, a shape or a mass, or its joint an armature"
                )
            if self.parents[i] >= 0:
                carried[self.parents[i]] += carried[i]

    def _error(self, what: str) -> ValueError:
        return ValueError(f"Model {self.name!r}: {what}")

    @cached_property
    def index(self) -> dict[str, int]:
        """Link name -> position in `links`."""
        return {link.name: i for i, link in enumerate(self.links)}

    @cached_property
    def parents(self) -> list[int]:
        """Index of each link's parent, -1 for the world."""
        return [-1 if link.parent is None else self.index[link.parent] for link in self.links]

    @cached_property
    def q_start(self) -> list[int]:
        """Where each link's coordinates begin in q, and their number at the end."""
        return list(accumulate((COORDINATES[link.joint.kind][0] for link in self.links), initial=0))

    @cached_property
    def qd_start(self) -> list[int]:
        """Where each link's velocities begin in qd, and their number at the end."""
        return list(accumulate((COORDINATES[link.joint.kind][1] for link in self.links), initial=0))

    @property
    def nq(self) -> int:
        """Number of generalised coordinates."""
        return self.q_start[-1]

    @property
    def nd(self) -> int:
        """Number of generalised velocities."""
        return self.qd_start[-1]

    @cached_property
    def masses(self) -> list[MassProperties]:
        """Mass properties of each link."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return [link.mass or mass_properties(link.shapes, exact=self.exact_inertia) for link in self.links]

    @cached_property
    def joint_rotations(self) -> list[list[list[float]]]:
        """Rotation matrix of each joint frame in its parent's frame, with rounding of right angles removed."""
        exact = np.array([quaternion_matrix(link.joint.rotation) for link in self.links], float)
        near = np.abs(exact - np.round(exact)) < 1e-6
        return np.where(near, np.round(exact), exact).tolist()

    @cached_property
    def axes(self) -> list[list[float]]:
        """Unit joint axes; zeros where the joint has none."""
        raw = [np.array(link.joint.axis, float) for link in self.links]
        return [(a / np.linalg.norm(a)).tolist() if np.linalg.norm(a) > 0 else a.tolist() for a in raw]

    @cached_property
    def contacts(self) -> list[Contact]:
        """Contact points of all colliding links."""
        return [
            Contact(i, point, radius)
            for i, link in enumerate(self.links)
            if link.collides
            for shape in link.shapes
            for point, radius in shape.contact_points()
        ]

    @cached_property
    def segments(self) -> list[tuple[int, int, int, Point, Point]]:
        """(muscle, link a, link b, point a, point b) of every segment that joins two links."""
        return [
            (m, self.index[a], self.index[b], x, y)
            for m, muscle in enumerate(self.muscles)
            for (a, x), (b, y) in pairwise(muscle.waypoints)
            if a != b
        ]

    @cached_property
    def touched(self) -> list[int]:
        """Links that contacts or muscles act on, in order: the ones whose pose is written out for the loops."""
        return sorted({c.link for c in self.contacts} | {i for _, a, b, _, _ in self.segments for i in (a, b)})

    @cached_property
    def ancestors(self) -> list[list[int]]:
        """For each velocity, the velocities of its own chain toward the root, nearest first (itself left out)."""
        owner = [i for i in range(len(self.links)) for _ in range(self.qd_start[i], self.qd_start[i + 1])]
        result = []
        for d in range(self.nd):
            chain, link = list(range(d - 1, self.qd_start[owner[d]] - 1, -1)), self.parents[owner[d]]
            while link >= 0:
                chain.extend(range(self.qd_start[link + 1] - 1, self.qd_start[link] - 1, -1))
                link = self.parents[link]
            result.append(chain)
        return result

    @cached_property
    def mass_entries(self) -> list[tuple[int, int]]:
        """(row, column) of the structural nonzeros of the mass matrix, row >= column."""
        return [(d, e) for d in range(self.nd) for e in sorted([*self.ancestors[d], d])]
