"""Spheres, capsules and boxes: mass, inertia, contact points. Lengths in m, masses in kg."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Box", "Capsule", "MassProperties", "Point", "Shape", "Sphere", "mass_properties"]

Point = tuple[float, float, float]


@dataclass(frozen=True)
class MassProperties:
    """Of a link: mass [kg], com [3] in the link frame, inertia [3, 3] about the com, along the axes of the link frame."""

    mass: float
    com: np.ndarray
    inertia: np.ndarray


@dataclass(frozen=True)
class Sphere:
    """A ball; one contact point. `mass` overrides `density`, here and below."""

    center: Point
    radius: float
    density: float = 1000.0
    mass: float | None = None

    def contact_points(self) -> list[tuple[Point, float]]:
        """Give its centre with the radius."""
        return [(self.center, self.radius)]

    def solid(self) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Compute mass, center, principal moments, and the rotation from principal axes to the link frame."""
        mass = self.mass if self.mass is not None else self.density * 4 / 3 * math.pi * self.radius**3
        return mass, np.array(self.center, float), np.full(3, 0.4 * mass * self.radius**2), np.eye(3)


@dataclass(frozen=True)
class Capsule:
    """A cylinder with half balls at `start` and `end`; a contact point at either."""

    start: Point
    end: Point
    radius: float
    density: float = 1000.0
    mass: float | None = None

    def contact_points(self) -> list[tuple[Point, float]]:
        """Give both ends with the radius."""
        return [(self.start, self.radius), (self.end, self.radius)]

    def solid(self) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Compute the same as for a sphere; the first principal axis is along the capsule."""
        a, b, r = np.array(self.start, float), np.array(self.end, float), self.radius
        length = float(np.linalg.norm(b - a))
        volume = 4 / 3 * math.pi * r**3 + math.pi * r**2 * length
        density = self.density if self.mass is None else self.mass / volume
        balls, cylinder = density * 4 / 3 * math.pi * r**3, density * math.pi * r**2 * length
        across = cylinder * (r**2 / 4 + length**2 / 12) + balls * (0.4 * r**2 + 0.375 * r * length + 0.25 * length**2)
        along = (0.5 * cylinder + 0.4 * balls) * r**2
        return balls + cylinder, (a + b) / 2, np.array([along, across, across]), _from_x((b - a) / length)


@dataclass(frozen=True)
class Box:
    """A box of half sizes `half` along the axes of the link frame; its eight corners are contact points."""

    center: Point
    half: Point
    density: float = 1000.0
    mass: float | None = None

    def contact_points(self) -> list[tuple[Point, float]]:
        """Give the corners with radius 0."""
        x, y, z = ((c - h, c + h) for c, h in zip(self.center, self.half, strict=True))
        return [(corner, 0.0) for corner in itertools.product(x, y, z)]

    def solid(self) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Compute the same as for a sphere."""
        x, y, z = self.half
        mass = self.mass if self.mass is not None else self.density * 8 * x * y * z
        return mass, np.array(self.center, float), mass / 3 * np.array([y * y + z * z, x * x + z * z, x * x + y * y]), np.eye(3)


Shape = Sphere | Capsule | Box


def _from_x(direction: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes the x axis to `direction`."""
    x, y, z = direction
    if x < -1 + 1e-9:
        return np.diag([-1.0, -1.0, 1.0])
    k = 1 / (1 + x)
    return np.array([[x, -y, -z], [y, 1 - k * y * y, -k * y * z], [z, -k * y * z, 1 - k * z * z]])


def mass_properties(shapes: Iterable[Shape], *, exact: bool = True) -> MassProperties:
    """Compute mass, com and inertia of a rigid union.

    Args:
        shapes: what the body consists of; their volumes are counted twice where they overlap.
        exact: False follows dflex, on which the published single-task results were computed: it rotates inertias with an element-wise
            product (R * I * R^T instead of R I R^T), so that a capsule along z has inertia about y only, and drops the products of
            inertia of what it has already summed. Masses and centers are the same.
    """
    total, com, inertia = 0.0, np.zeros(3), np.zeros((3, 3))
    for shape in shapes:
        mass, center, moments, rotation = shape.solid()
        new_com = (total * com + mass * center) / (total + mass)
        if exact:
            part, before = rotation @ np.diag(moments) @ rotation.T, inertia
        else:
            part, before = rotation * np.diag(moments) * rotation.T, np.diag(np.diag(inertia))
        inertia = before + _shift(total, new_com - com) + part + _shift(mass, new_com - center)
        total, com = total + mass, new_com
    return MassProperties(total, com, inertia)


def _shift(mass: float, offset: np.ndarray) -> np.ndarray:
    return mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))
