"""Arithmetic over generic scalars: Python floats, traced `Scalar`s and torch tensors go through the same formulas.

Dynamics, observations and rewards are written once with these functions. Run on traced scalars they become the kernels; run on
float64 tensors they are the oracle that the kernels are checked against. + - * / and Python's own abs work on all three; `mul` also
folds the exact zeros of the model's tables where they meet a tensor, as the tracer does by itself.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from .trace import Scalar, constant_of

__all__ = [
    "Matrix", "Number", "Vector", "clip", "cos", "cross", "dot", "exp", "from_columns", "identity", "matmul", "matvec", "mul",
    "quaternion_matrix", "quaternion_product", "rotation", "scale", "select_negative", "sin", "sqrt", "stack_columns", "tanh", "transpose",
    "vadd", "wrap_angle",
]  # fmt: skip

Number: TypeAlias = Any
"""A float, a traced `Scalar` or a torch tensor; that the last two never meet is more than a type can say."""
Vector: TypeAlias = Sequence[Number]
Matrix: TypeAlias = Sequence[Sequence[Number]]


def _is_zero(x: Number) -> bool:
    return not isinstance(x, torch.Tensor) and constant_of(x) == 0.0


def mul(a: Number, b: Number) -> Number:
    """Multiply a and b; an exact 0 gives the float 0.0, also where the other one is a tensor."""
    return 0.0 if _is_zero(a) or _is_zero(b) else a * b


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
    turns = ((x.detach() if isinstance(x, torch.Tensor) else x) + math.pi) * (0.5 / math.pi)
    return x - 2.0 * math.pi * _floor(turns)


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
    x = select_negative(x - low, low, x)
    return select_negative(high - x, high, x)


def vadd(a: Vector, b: Vector) -> list[Number]:
    """Add element by element."""
    return [x + y for x, y in zip(a, b, strict=True)]


def scale(a: Vector, s: Number) -> list[Number]:
    """Multiply a vector by s."""
    return [mul(x, s) for x in a]


def dot(a: Vector, b: Vector) -> Number:
    """Sum a_i b_i over i."""
    return sum((mul(x, y) for x, y in zip(a, b, strict=True)), 0.0)


def cross(a: Vector, b: Vector) -> list[Number]:
    """Take the cross product of 3-vectors."""
    return [mul(a[i], b[j]) - mul(a[j], b[i]) for i, j in ((1, 2), (2, 0), (0, 1))]


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
    return [*vector, mul(a[3], b[3]) - dot(a[:3], b[:3])]


def quaternion_matrix(q: Vector) -> list[list[Number]]:
    """Write a unit quaternion (x, y, z, w) as a rotation matrix."""
    x, y, z, w = q
    return [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ]


def rotation(axis: Sequence[float], angle: Number) -> list[list[Number]]:
    """Make the rotation matrix about a constant unit axis (Rodrigues)."""
    s, c = sin(angle), cos(angle)
    x, y, z = axis
    skew = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]
    return [[mul(c, float(i == j)) + (mul(1.0 - c, axis[i] * axis[j]) + mul(s, skew[i][j])) for j in range(3)] for i in range(3)]
