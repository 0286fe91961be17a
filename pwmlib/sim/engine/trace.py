"""A scalar tracer: records arithmetic as a graph, folds constants, shares common subexpressions, differentiates in reverse, emits C.

    graph = Graph()
    x, y = graph.input("x", 0), graph.input("x", 1)
    z = x * y + x.sin()
    dx, dy = reverse(graph, [z], [1.0], [x, y])
    text = emit(graph, [[Store("out[0]", dx)]], load=lambda name, i: f"{name}[{i}]")

The graph is append-only, so that the order of its nodes is an order of evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

__all__ = ["Graph", "Scalar", "Store", "constant_of", "emit", "reverse"]

_BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_UNARY = {"sqrt": "SQRT", "sin": "SIN", "cos": "COS", "floor": "FLOOR", "exp": "EXP", "tanh": "TANH"}


class Graph:
    """Nodes in order of evaluation; two nodes with the same operation and operands are one."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.operands: list[tuple] = []
        self._known: dict[tuple, int] = {}

    def node(self, operation: str, *operands: object) -> Scalar:
        """The node of this operation, made if it is new."""
        key = (operation, *operands)
        index = self._known.get(key)
        if index is None:
            index = self._known[key] = len(self.operations)
            self.operations.append(operation)
            self.operands.append(operands)
        return Scalar(self, index)

    def input(self, name: str, index: int = 0) -> Scalar:
        """Element `index` of the kernel array `name`."""
        return self.node("input", name, index)

    def inputs(self, name: str, count: int) -> list[Scalar]:
        """The first `count` elements of the kernel array `name`."""
        return [self.input(name, i) for i in range(count)]

    def lift(self, x: Scalar | float) -> Scalar:
        """x itself, or the constant node of a float."""
        return x if isinstance(x, Scalar) else self.node("constant", float(x))


def constant_of(x: Scalar | float) -> float | None:
    """The value of a constant, None for what is known only at run time."""
    if not isinstance(x, Scalar):
        return float(x)
    return x.graph.operands[x.index][0] if x.graph.operations[x.index] == "constant" else None


class Scalar:
    """One traced value. Operators record; constants fold. It has no value before the kernel runs, so nothing can depend on one."""

    __slots__ = ("graph", "index")

    def __init__(self, graph: Graph, index: int):
        self.graph, self.index = graph, index

    def __add__(self, other: Scalar | float) -> Scalar:
        a, b = constant_of(self), constant_of(other)
        if b == 0.0:
            return self
        if a == 0.0 or (a is not None and b is not None):
            return self.graph.lift(other if a == 0.0 else a + b)
        return self.graph.node("add", *sorted((self.index, self.graph.lift(other).index)))

    def __sub__(self, other: Scalar | float) -> Scalar:
        a, b = constant_of(self), constant_of(other)
        if b == 0.0:
            return self
        if a is not None and b is not None:
            return self.graph.lift(a - b)
        other = self.graph.lift(other)
        if a == 0.0:
            return -other
        return self.graph.lift(0.0) if self.index == other.index else self.graph.node("sub", self.index, other.index)

    def __mul__(self, other: Scalar | float) -> Scalar:
        a, b = constant_of(self), constant_of(other)
        if a is not None and b is not None:
            return self.graph.lift(a * b)
        other = self.graph.lift(other)
        for value, this in ((a, other), (b, self)):
            if value == 0.0:
                return self.graph.lift(0.0)
            if value in (1.0, -1.0):
                return this if value == 1.0 else -this
        return self.graph.node("mul", *sorted((self.index, other.index)))

    def __truediv__(self, other: Scalar | float) -> Scalar:
        a, b = constant_of(self), constant_of(other)
        if a == 0.0:
            return self
        if b is not None:
            return self * (1.0 / b)
        return self.graph.node("div", self.index, self.graph.lift(other).index)

    def __neg__(self) -> Scalar:
        value = constant_of(self)
        if value is not None:
            return self.graph.lift(-value)
        operation, operands = self.graph.operations[self.index], self.graph.operands[self.index]
        if operation == "neg":
            return Scalar(self.graph, operands[0])
        if operation == "sub":
            return self.graph.node("sub", operands[1], operands[0])
        return self.graph.node("neg", self.index)

    def __radd__(self, other: float) -> Scalar:
        return self + other

    def __rmul__(self, other: float) -> Scalar:
        return self * other

    def __rsub__(self, other: float) -> Scalar:
        return self.graph.lift(other) - self

    def __rtruediv__(self, other: float) -> Scalar:
        return self.graph.lift(other) / self

    def sqrt(self) -> Scalar:
        return self.graph.node("sqrt", self.index)

    def sin(self) -> Scalar:
        return self.graph.node("sin", self.index)

    def cos(self) -> Scalar:
        return self.graph.node("cos", self.index)

    def exp(self) -> Scalar:
        return self.graph.node("exp", self.index)

    def tanh(self) -> Scalar:
        return self.graph.node("tanh", self.index)

    def __abs__(self) -> Scalar:
        return self.select_negative(-self, self)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            "a traced scalar has no value while the kernels are written, so it cannot be tested or compared (if, and, max, <, ==): "
            "use select_negative, clip or abs, see pwmlib.sim.engine.scalars"
        )

    __bool__ = __float__ = __int__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _refuse
    __hash__ = None

    def floor(self) -> Scalar:
        return self.graph.node("floor", self.index)

    def select_negative(self, negative: Scalar | float, otherwise: Scalar | float) -> Scalar:
        a, b = self.graph.lift(negative), self.graph.lift(otherwise)
        value = constant_of(self)
        if value is not None:
            return a if value < 0 else b
        return a if a.index == b.index else self.graph.node("select", self.index, a.index, b.index)


def reverse(graph: Graph, outputs: Sequence, seeds: Sequence, wrt: Sequence[Scalar]) -> list[Scalar]:
    """Adjoints of `wrt`: the sum over outputs of seed times d output / d wrt, as new nodes of the same graph.

    Outputs may be floats (their seeds are dropped). Differentiation stops at `wrt`.
    """
    zero = graph.lift(0.0)
    adjoint: dict[int, Scalar] = {}
    for output, seed in zip(outputs, seeds, strict=True):
        if constant_of(output) is None:
            adjoint[output.index] = adjoint.get(output.index, zero) + seed
    wanted = {x.index for x in wrt}
    top = max(adjoint, default=-1)
    depends = [False] * (top + 1)
    for i in range(top + 1):
        if i in wanted:
            depends[i] = True
        elif graph.operations[i] not in ("constant", "input"):
            depends[i] = any(depends[j] for j in graph.operands[i])

    def accumulate(index: int, value: Scalar) -> None:
        if depends[index] and constant_of(value) != 0.0:
            adjoint[index] = adjoint.get(index, zero) + value

    for i in range(top, -1, -1):
        if i in wanted or i not in adjoint or not depends[i]:
            continue
        a, operation, operands = adjoint.pop(i), graph.operations[i], graph.operands[i]
        if operation in ("constant", "input"):
            continue
        x, this = [Scalar(graph, j) for j in operands], Scalar(graph, i)
        if operation == "add":
            accumulate(operands[0], a)
            accumulate(operands[1], a)
        elif operation == "sub":
            accumulate(operands[0], a)
            accumulate(operands[1], -a)
        elif operation == "neg":
            accumulate(operands[0], -a)
        elif operation == "mul" and operands[0] == operands[1]:
            accumulate(operands[0], (a + a) * x[0])
        elif operation == "mul":
            accumulate(operands[0], a * x[1])
            accumulate(operands[1], a * x[0])
        elif operation == "div":
            quotient = a / x[1]
            accumulate(operands[0], quotient)
            accumulate(operands[1], -(quotient * this))
        elif operation == "sqrt":
            accumulate(operands[0], (a * 0.5) / this)
        elif operation == "sin":
            accumulate(operands[0], a * x[0].cos())
        elif operation == "cos":
            accumulate(operands[0], -(a * x[0].sin()))
        elif operation == "exp":
            accumulate(operands[0], a * this)
        elif operation == "tanh":
            accumulate(operands[0], a * (1.0 - this * this))
        elif operation == "select":
            accumulate(operands[1], x[0].select_negative(a, zero))
            accumulate(operands[2], x[0].select_negative(zero, a))
    return [adjoint.get(x.index, zero) for x in wrt]


@dataclass(frozen=True)
class Store:
    """One output of emitted code: `target = value;` or, with add, `target += value;`."""

    target: str
    value: Scalar | float
    add: bool = False


def emit(graph: Graph, stages: Iterable[Sequence[Store] | str], load: Callable[[str, int], str], prefix: str = "t") -> str:
    """C statements in single assignment form. A stage is a list of stores, or text put between the stores around it.

    A node is computed in the first stage that needs it and stays known in the later ones; inputs are read where they are first
    needed, so that text between two stages may write what the second one reads. `load(name, index)` gives an input's expression.
    """
    lines: list[str] = []
    names: dict[int, str] = {}
    for stage in stages:
        if isinstance(stage, str):
            lines.append(stage)
            continue
        stores = [s for s in stage if not (s.add and constant_of(s.value) == 0.0)]
        needed, pending = set(), [s.value.index for s in stores if isinstance(s.value, Scalar)]
        while pending:
            i = pending.pop()
            if i in needed or i in names:
                continue
            needed.add(i)
            if graph.operations[i] not in ("constant", "input"):
                pending.extend(graph.operands[i])
        for i in sorted(needed):
            operation, operands = graph.operations[i], graph.operands[i]
            if operation == "constant":
                names[i] = _literal(operands[0])
                continue
            if operation == "input":
                text = load(*operands)
            elif operation in _BINARY:
                text = f"{names[operands[0]]}{_BINARY[operation]}{names[operands[1]]}"
            elif operation == "neg":
                text = f"-{names[operands[0]]}"
            elif operation == "select":
                text = "SELECT({},{},{})".format(*(names[j] for j in operands))
            else:
                text = f"{_UNARY[operation]}({names[operands[0]]})"
            names[i] = f"{prefix}{i}"
            lines.append(f"const F {names[i]}={text};")
        for s in stores:
            value = names[s.value.index] if isinstance(s.value, Scalar) else _literal(s.value)
            lines.append(f"{s.target}{'+=' if s.add else '='}{value};")
    return "\n".join(lines)


def _literal(value: float) -> str:
    return f"F({value:.9e}f)"
