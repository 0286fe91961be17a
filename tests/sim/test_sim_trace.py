"""The tracer against plain Python and finite differences, and the generic scalars against torch."""

import math

import numpy as np
import pytest
import torch

from pwmlib.sim.engine import scalars as s
from pwmlib.sim.engine.trace import Graph, Scalar, Store, constant_of, emit, reverse


def run(graph, outputs, **arrays):
    """Evaluate outputs by executing the emitted statements as Python."""
    text = emit(graph, [[Store(f"out[{i}]", graph.lift(o)) for i, o in enumerate(outputs)]], lambda name, i: f"{name}[{i}]")
    lines = [line.replace("const F ", "").replace(";", "") for line in text.splitlines()]
    lines = [line.replace("f)", ")") for line in lines]
    out = [0.0] * len(outputs)
    environment = {
        "out": out, "F": float, "SQRT": math.sqrt, "SIN": math.sin, "COS": math.cos, "FLOOR": math.floor, "EXP": math.exp,
        "TANH": math.tanh,
        "SELECT": lambda c, a, b: a if c < 0 else b, **arrays,
    }  # fmt: skip
    exec("\n".join(lines), environment)
    return out


def formula(x, y, z):
    a = s.sin(x) * y + s.sqrt(s.mul(x, x) + 2.0) / (z - 3.0)
    b = s.select_negative(x - y, s.mul(a, a), s.cos(z) - a)
    b = b + s.mul(s.wrap_angle(s.mul(9.0, y)), z) + s.exp(x * 0.5) * s.tanh(z - y) - abs(s.tanh(x) * s.exp(-y))
    return s.mul(b, s.clip(z, -1.0, 1.0)) - 2.0 / (1.5 + s.mul(y, y)) + (-x) * (x - z) * 1.0


POINTS = [(0.3, -0.7, 0.9), (-1.1, 0.4, -0.2), (2.0, 2.5, 1.7)]


@pytest.mark.parametrize("point", POINTS)
def test_traced_value_and_gradient_are_those_of_python_and_torch(point):
    graph = Graph()
    inputs = graph.inputs("x", 3)
    value = formula(*inputs)
    gradient = reverse(graph, [value], [1.0], inputs)
    got = run(graph, [value, *gradient], x=point)
    tensors = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    expected = formula(*tensors)
    expected.backward()
    assert got[0] == pytest.approx(formula(*point), abs=1e-6)
    np.testing.assert_allclose(got[1:], tensors.grad.numpy(), atol=1e-6)
    for i, slope in enumerate(got[1:]):
        high, low = (formula(*(v + (h if i == j else 0.0) for j, v in enumerate(point))) for h in (1e-5, -1e-5))
        assert (high - low) / 2e-5 == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda x: 1.0 if x else 0.0,
        lambda x: 1.0 if x > 0 else 0.0,
        lambda x: 1.0 if x == 0 else 0.0,
        lambda x: max(x, 0.0),
        lambda x: float(x),
        lambda x: x and 1.0,
    ],
)
def test_what_depends_on_a_traced_value_is_refused(misuse):
    with pytest.raises(TypeError, match=r"cannot be tested or compared .*select_negative"):
        misuse(Graph().input("x"))


def test_constants_fold_and_equal_expressions_are_one_node():
    graph = Graph()
    x, y = graph.inputs("x", 2)
    assert constant_of(graph.lift(2.0) * 3.0 + 1.0) == 7.0
    assert (x + y).index == (y + x).index and (x * y).index == (y * x).index
    assert constant_of(x * 0.0) == 0.0 and (x * 1.0).index == x.index and (x + 0.0).index == x.index
    assert constant_of(x - x) == 0.0 and (-(0.0 - x)).index == x.index
    count = len(graph.operations)
    _ = (x + y) * (y + x)
    assert len(graph.operations) == count + 1


def test_a_later_stage_reads_what_text_between_the_stages_wrote():
    graph = Graph()
    a, b = graph.input("a", 0), graph.input("b", 0)
    text = emit(graph, [[Store("first", a * a)], "b[0]=7;", [Store("second", a * a + b)]], lambda n, i: f"{n}[{i}]")
    lines = text.splitlines()
    assert lines.index("b[0]=7;") < next(i for i, line in enumerate(lines) if "=b[0]" in line)
    assert sum("a[0]" in line for line in lines) == 1


def test_zero_accumulations_are_not_emitted():
    graph = Graph()
    assert emit(graph, [[Store("x", 0.0, add=True), Store("y", graph.lift(0.0), add=True)]], lambda n, i: "") == ""


@pytest.mark.parametrize("seed", range(3))
def test_vector_algebra_agrees_with_torch(seed):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, generator=g, dtype=torch.float64)
    q = torch.nn.functional.normalize(torch.randn(4, generator=g, dtype=torch.float64), dim=0)
    m = torch.tensor(s.quaternion_matrix(q.tolist()), dtype=torch.float64)
    torch.testing.assert_close(m @ m.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(torch.tensor(s.cross(a.tolist(), b.tolist()), dtype=torch.float64), torch.linalg.cross(a, b))
    twice = torch.tensor(s.quaternion_matrix(s.quaternion_product(q.tolist(), q.tolist())), dtype=torch.float64)
    torch.testing.assert_close(m @ m, twice)
    axis = torch.nn.functional.normalize(a, dim=0).tolist()
    angle = 0.7
    half = [*(x * math.sin(angle / 2) for x in axis), math.cos(angle / 2)]
    np.testing.assert_allclose(s.rotation(axis, angle), s.quaternion_matrix(half), atol=1e-12)


def test_scalar_division_by_a_constant_is_a_product():
    graph = Graph()
    x = graph.input("x", 0)
    y = x / 4.0
    assert isinstance(y, Scalar) and graph.operations[y.index] == "mul"
