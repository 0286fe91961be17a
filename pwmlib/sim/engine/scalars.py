"""Arithmetic over generic scalars: Python floats, traced `Scalar`s and torch tensors go through the same formulas.

Dynamics, observations and rewards are written once with these functions. Run on traced scalars they become the kernels; run on
float64 tensors they are the oracle that the kernels are checked against. Exact zeros and ones of the model's tables are folded
here, so that a sparse table costs nothing. Python's own abs works on all three.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from .trace import Scalar, constant_of

__all__ = [
    "Matrix", "Number", "Vector", "add", "clip", "cos", "cross", "div", "dot", "exp", "from_columns", "identity", "matmul", "matvec", "mul",
    "quaternion_matrix", "quaternion_product", "rotation", "scale", "select_negative", "sin", "sqrt", "stack_columns", "sub", "tanh",
    "transpose", "vadd", "vsub", "wrap_angle",
]  # fmt: skip

Number: TypeAlias = "float | Scalar | torch.Tensor"
Vector: TypeAlias = "Sequence[Number]"
Matrix: TypeAlias = "Sequence[Sequence[Number]]"


def _is(x: Number, value: float) -> bool:
    return not isinstance(x, torch.Tensor) and constant_of(x) == value


def _any(x: Number) -> Any:
    """An operand without its type: a traced scalar and a tensor never meet, which the type of a number cannot say."""
    return x


def add(a: Number, b: Number) -> Number:
    """Add a and b; an exact 0 leaves the other operand untouched."""
    if _is(a, 0.0):
        return b
    return a if _is(b, 0.0) else a + _any(b)


def sub(a: Number, b: Number) -> Number:
    """Subtract b from a."""
    if _is(b, 0.0):
        return a
    return -b if _is(a, 0.0) else a - _any(b)


def mul(a: Number, b: Number) -> Number:
    """Multiply a and b; an exact 0 gives the float 0.0, an exact 1 the other operand."""
    if _is(a, 0.0) or _is(b, 0.0):
        return 0.0
    if _is(a, 1.0):
        return b
    if _is(b, 1.0):
        return a
    if _is(a, -1.0):
        return -b
    return -a if _is(b, -1.0) else a * _any(b)


def div(a: Number, b: Number) -> Number:
    """Divide a by b."""
    return 0.0 if _is(a, 0.0) else a / _any(b)


def _elementary(name: str) -> Callable[[Number], Number]:
    """The function of this name, in `math` for a float and a method of the other numbers."""
    of_float, of_other = getattr(math, name), operator.methodcaller(name)

    def function(x: Number) -> Number:
        return of_other(x) if isinstance(x, Scalar | torch.Tensor) else of_float(x)

    function.__name__, function.__doc__ = name, f"Compute {name}(x); angles are in radians."
    return function


sqrt, sin, cos, exp, tanh, _floor = map(_elementary, ("sqrt", "sin", "cos", "exp", "tanh", "floor"))


def wrap_angle(x: Number) -> Number:
    """Wrap an angle to [-pi, pi), radians; its derivative is 1, the jumps are not counted."""
    turns = mul(add(x.detach() if isinstance(x, torch.Tensor) else x, math.pi), 0.5 / math.pi)
    return sub(x, mul(2.0 * math.pi, _floor(turns)))


def select_negative(condition: Number, negative: Number, otherwise: Number) -> Number:
    """Pick `negative` where condition < 0, else `otherwise`; no gradient to the condition."""
    if isinstance(condition, torch.Tensor):
        like = {"dtype": condition.dtype, "device": condition.device}
        return torch.where(condition < 0, torch.as_tensor(negative, **like), torch.as_tensor(otherwise, **like))
    if isinstance(condition, Scalar):
        return condition.select_negative(negative, otherwise)
    return negative if condition < 0 else otherwise


def clip(x: Number, low: float, high: float) -> Number:
    """Limit x to [low, high]; zero gradient outside."""
    x = select_negative(sub(x, low), low, x)
    return select_negative(sub(high, x), high, x)


def vadd(a: Vector, b: Vector) -> list[Number]:
    """Add element by element."""
    return [add(x, y) for x, y in zip(a, b, strict=True)]


def vsub(a: Vector, b: Vector) -> list[Number]:
    """Subtract element by element."""
    return [sub(x, y) for x, y in zip(a, b, strict=True)]


def scale(a: Vector, s: Number) -> list[Number]:
    """Multiply a vector by s."""
    return [mul(x, s) for x in a]


def dot(a: Vector, b: Vector) -> Number:
    """Sum a_i b_i over i."""
    total: Number = 0.0
    for x, y in zip(a, b, strict=True):
        total = add(total, mul(x, y))
    return total


def cross(a: Vector, b: Vector) -> list[Number]:
    """Take the cross product of 3-vectors."""
    return [sub(mul(a[i], b[j]), mul(a[j], b[i])) for i, j in ((1, 2), (2, 0), (0, 1))]


def matvec(m: Matrix, v: Vector) -> list[Number]:
    """Multiply matrix and vector."""
    return [dot(row, v) for row in m]


def transpose(m: Matrix) -> list[list[Number]]:
    """Transpose a matrix."""
    return [list(column) for column in zip(*m, strict=True)]


def matmul(a: Matrix, b: Matrix) -> list[list[Number]]:
    """Multiply two matrices."""
    columns = transpose(b)
    return [[dot(row, column) for column in columns] for row in a]


def identity() -> list[list[Number]]:
    """Make the 3 x 3 identity of floats."""
    return [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def from_columns(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Take the last axis of a tensor apart into generic scalars."""
    return list(tensor.unbind(-1))


def stack_columns(columns: Vector, like: torch.Tensor) -> torch.Tensor:
    """Stack generic scalars to one tensor [..., columns], for a `like` of shape [..., any]."""
    full = [torch.as_tensor(c, dtype=like.dtype, device=like.device).expand(like.shape[:-1]) for c in columns]
    return torch.stack(full, -1)


def quaternion_product(a: Vector, b: Vector) -> list[Number]:
    """Multiply quaternions (x, y, z, w) by Hamilton's rule."""
    vector = vadd(vadd(scale(b[:3], a[3]), scale(a[:3], b[3])), cross(a[:3], b[:3]))
    return [*vector, sub(mul(a[3], b[3]), dot(a[:3], b[:3]))]


def quaternion_matrix(q: Vector) -> list[list[Number]]:
    """Write a unit quaternion (x, y, z, w) as a rotation matrix."""
    x, y, z, w = q
    xx, yy, zz, xy, xz, yz = mul(x, x), mul(y, y), mul(z, z), mul(x, y), mul(x, z), mul(y, z)
    wx, wy, wz = mul(w, x), mul(w, y), mul(w, z)
    return [
        [sub(1.0, mul(2.0, add(yy, zz))), mul(2.0, sub(xy, wz)), mul(2.0, add(xz, wy))],
        [mul(2.0, add(xy, wz)), sub(1.0, mul(2.0, add(xx, zz))), mul(2.0, sub(yz, wx))],
        [mul(2.0, sub(xz, wy)), mul(2.0, add(yz, wx)), sub(1.0, mul(2.0, add(xx, yy)))],
    ]


def rotation(axis: Sequence[float], angle: Number) -> list[list[Number]]:
    """Make the rotation matrix about a constant unit axis (Rodrigues)."""
    s, c = sin(angle), cos(angle)
    one_minus_c = sub(1.0, c)
    x, y, z = axis
    skew = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]
    return [[add(mul(c, float(i == j)), add(mul(one_minus_c, axis[i] * axis[j]), mul(s, skew[i][j]))) for j in range(3)] for i in range(3)]
