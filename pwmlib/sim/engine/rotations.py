"""Rotations as MuJoCo and the engine write them."""

from __future__ import annotations

import math

import numpy as np

from .scalars import quaternion_matrix

__all__ = ["UP", "Quaternion", "rotate", "rotation_matrix", "xyzw"]

Quaternion = tuple[float, float, float, float]
"""x, y, z, w."""

UP: Quaternion = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
"""From z up, as MuJoCo has it and most robots' tables, to the engine's y up."""


def xyzw(wxyz: np.ndarray) -> Quaternion:
    """Put MuJoCo's quaternion in the engine's order."""
    w, x, y, z = wxyz.tolist()
    return x, y, z, w


def rotation_matrix(quaternion: Quaternion) -> np.ndarray:
    """Write a quaternion as a matrix [3, 3]."""
    return np.array(quaternion_matrix(quaternion), float)


def rotate(quaternion: Quaternion, v: np.ndarray) -> np.ndarray:
    """Rotate a vector [3]."""
    return rotation_matrix(quaternion) @ v
