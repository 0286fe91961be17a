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
from typing import NoReturn, SupportsFloat

__all__ = ["Graph", "Scalar", "Store", "constant_of", "emit", "reverse"]

_FORMS = {
    "add": "{}+{}", "sub": "{}-{}", "mul": "{}*{}", "div": "{}/{}", "neg": "-{}", "select": "SELECT({},{},{})", "sqrt": "SQRT({})",
    "sin": "SIN({})", "cos": "COS({})", "floor": "FLOOR({})", "exp": "EXP({})", "tanh": "TANH({})",
}  # fmt: skip
"""Operation -> its C; constants and inputs have none."""


class Graph:
    """Nodes in order of evaluation; two nodes with the same operation and operands are one."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.operands: list[tuple] = []
        self._known: dict[tuple, int] = {}

    def node(self, operation: str, *operands: object) -> Scalar:
        """Find the node of this operation, or make it."""
        key = (operation, *operands)
        index = self._known.get(key)
        if index is None:
            index = self._known[key] = len(self.operations)
            self.operations.append(operation)
            self.operands.append(operands)
        return Scalar(self, index)

    def input(self, name: str, index: int = 0) -> Scalar:
        """Name element `index` of the kernel array `name`."""
        return self.node("input", name, index)

    def inputs(self, name: str, count: int) -> list[Scalar]:
        """Name the first `count` elements of the kernel array `name`."""
        return [self.input(name, i) for i in range(count)]

    def lift(self, x: Scalar | SupportsFloat) -> Scalar:
        """Make a node of a float; a node stays itself."""
        return x if isinstance(x, Scalar) else self.node("constant", float(x))


def constant_of(x: Scalar | SupportsFloat) -> float | None:
    """Give the value of a constant, None for what is known only at run time."""
    if not isinstance(x, Scalar):
        return float(x)
    return x.graph.operands[x.index][0] if x.graph.operations[x.index] == "constant" else None


def _unary(operation: str) -> Callable[[Scalar], Scalar]:
    return lambda x: x.graph.node(operation, x.index)


class Scalar:
    """One traced value. Operators record; constants fold. It has no value before the kernel runs, so nothing can depend on one."""

    __slots__ = ("graph", "index")

    def __init__(self, graph: Graph, index: int):
        self.graph, self.index = graph, index

    sqrt, sin, cos, floor, exp, tanh = map(_unary, ("sqrt", "sin", "cos", "floor", "exp", "tanh"))

    def __add__(self, other: Scalar | float) -> Scalar:
        a, b = constant_of(self), constant_of(other)
        if b == 0.0:
            return self
        if a == 0.0:
            return self.graph.lift(other)
        if a is not None and b is not None:
            return self.graph.lift(a + b)
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
        b = constant_of(other)
        if constant_of(self) == 0.0:
            return self
        return self * (1.0 / b) if b is not None else self.graph.node("div", self.index, self.graph.lift(other).index)

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

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: float) -> Scalar:
        return self.graph.lift(other) - self

    def __rtruediv__(self, other: float) -> Scalar:
        return self.graph.lift(other) / self

    def __abs__(self) -> Scalar:
        return self.select_negative(-self, self)

    def select_negative(self, negative: Scalar | SupportsFloat, otherwise: Scalar | SupportsFloat) -> Scalar:
        """Trace `negative if self < 0 else otherwise`."""
        a, b = self.graph.lift(negative), self.graph.lift(otherwise)
        value = constant_of(self)
        if value is not None:
            return a if value < 0 else b
        return a if a.index == b.index else self.graph.node("select", self.index, a.index, b.index)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            "a traced scalar has no value while the kernels are written, so it cannot be tested or compared (if, and, max, <, ==): "
            "use select_negative, clip or abs, see pwmlib.sim.engine.scalars"
        )

    __bool__ = __float__ = __int__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __hash__ = _refuse


_ADJOINTS: dict[str, tuple[Callable[[Scalar, Scalar, Sequence[Scalar]], Scalar | float], ...]] = {
    "add": (lambda a, y, x: a, lambda a, y, x: a),
    "sub": (lambda a, y, x: a, lambda a, y, x: -a),
    "neg": (lambda a, y, x: -a,),
    "mul": (lambda a, y, x: a * x[1], lambda a, y, x: a * x[0]),
    "square": (lambda a, y, x: (a + a) * x[0],),
    "div": (lambda a, y, x: a / x[1], lambda a, y, x: -(a / x[1] * y)),
    "sqrt": (lambda a, y, x: (a * 0.5) / y,),
    "sin": (lambda a, y, x: a * x[0].cos(),),
    "cos": (lambda a, y, x: -(a * x[0].sin()),),
    "exp": (lambda a, y, x: a * y,),
    "tanh": (lambda a, y, x: a * (1.0 - y * y),),
    "select": (lambda a, y, x: 0.0, lambda a, y, x: x[0].select_negative(a, 0.0), lambda a, y, x: x[0].select_negative(0.0, a)),
}
"""Operation y of x -> the adjoint of each operand, from the adjoint a of y; floor has none."""


def reverse(
    graph: Graph, outputs: Sequence[Scalar | SupportsFloat], seeds: Sequence[Scalar | float], wrt: Sequence[Scalar]
) -> list[Scalar]:
    """Differentiate in reverse: the sum over outputs of seed times d output / d wrt, as new nodes of the same graph.

    Outputs may be floats (their seeds are dropped). Differentiation stops at `wrt`.
    """
    zero = graph.lift(0.0)
    adjoint: dict[int, Scalar] = {}
    for output, seed in zip(outputs, seeds, strict=True):
        if isinstance(output, Scalar) and constant_of(output) is None:
            adjoint[output.index] = adjoint.get(output.index, zero) + seed
    wanted = {x.index for x in wrt}
    top = max(adjoint, default=-1)
    depends = [False] * (top + 1)
    for i in range(top + 1):
        if i in wanted:
            depends[i] = True
        elif graph.operations[i] in _FORMS:
            depends[i] = any(depends[j] for j in graph.operands[i])

    for i in range(top, -1, -1):
        if i in wanted or i not in adjoint or not depends[i]:
            continue
        a, operation, operands = adjoint.pop(i), graph.operations[i], graph.operands[i]
        if operation == "mul" and operands[0] == operands[1]:
            operation = "square"
        x, y = [Scalar(graph, j) for j in operands], Scalar(graph, i)
        for operand, of in zip(operands, _ADJOINTS.get(operation, ()), strict=False):
            value = of(a, y, x)
            if depends[operand] and constant_of(value) != 0.0:
                adjoint[operand] = adjoint.get(operand, zero) + value
    return [adjoint.get(x.index, zero) for x in wrt]


@dataclass(frozen=True)
class Store:
    """One output of emitted code: `target = value;` or, with add, `target += value;`."""

    target: str
    value: Scalar | SupportsFloat
    add: bool = False


def emit(graph: Graph, stages: Iterable[Sequence[Store] | str], load: Callable[[str, int], str], prefix: str = "t") -> str:
    """Write C statements in single assignment form. A stage is a list of stores, or text put between the stores around it.

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
            if graph.operations[i] in _FORMS:
                pending.extend(graph.operands[i])
        for i in sorted(needed):
            operation, operands = graph.operations[i], graph.operands[i]
            if operation == "constant":
                names[i] = _literal(operands[0])
                continue
            text = load(*operands) if operation == "input" else _FORMS[operation].format(*(names[j] for j in operands))
            names[i] = f"{prefix}{i}"
            lines.append(f"const F {names[i]}={text};")
        for s in stores:
            value = names[s.value.index] if isinstance(s.value, Scalar) else _literal(s.value)
            lines.append(f"{s.target}{'+=' if s.add else '='}{value};")
    return "\n".join(lines)


def _literal(value: SupportsFloat) -> str:
    return f"F({float(value):.9e}f)"
