"""Rotations as MuJoCo and the engine write them."""

from __future__ import annotations

import math

import numpy as np

from .scalars import quaternion_matrix

__all__ = ["UP", "rotate", "rotation_matrix", "xyzw"]

UP = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
"""From MuJoCo's z up to the engine's y up."""


def xyzw(wxyz: np.ndarray) -> tuple[float, float, float, float]:
    """MuJoCo's quaternion in the engine's order."""
    w, x, y, z = (float(v) for v in wxyz)
    return x, y, z, w


def rotation_matrix(quaternion: tuple) -> np.ndarray:
    """The matrix [3, 3] of a quaternion (x, y, z, w)."""
    return np.array(quaternion_matrix(quaternion), float)


def rotate(quaternion: tuple, v: np.ndarray) -> np.ndarray:
    """A vector [3], rotated."""
    return rotation_matrix(quaternion) @ np.asarray(v, float)
