"""Errors whose message is the whole story: shown in a notebook as one paragraph, without a traceback."""

import copy
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor

__all__ = ["ExplainedError", "NonFiniteError", "check_finite", "one_of", "restored_on_failure"]

T = TypeVar("T")


class ExplainedError(RuntimeError):
    """Such an error says what was given, what is allowed and where; IPython prints the message alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class NonFiniteError(ExplainedError):
    """A loss or gradient was NaN or infinite."""


def one_of(value: T, allowed: Collection[T], what: str) -> T:
    """Give back a value that is allowed. Raises ValueError, which says what it is the value of and names all that could be given."""
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise ValueError(f"{what} must be {', '.join(others)} or {last}, got {value!r}")
    return value


def check_finite(step: int, **terms: Tensor | float) -> None:
    """Raise NonFiniteError naming the first term that is not finite."""
    for name, value in terms.items():
        number = float(value.detach() if isinstance(value, Tensor) else value)
        if not math.isfinite(number):
            raise NonFiniteError(f"update {step}: the {name.replace('_', ' ')} is {number}")


@contextmanager
def restored_on_failure(learner: Any, **which: bool) -> Iterator[None]:
    """Put the learner back into the state before the block when an error leaves it; a NonFiniteError then says so.

    which: options of its `state_dict`, where not all of that can change.
    """
    before = _copy(learner.state_dict(**which))
    try:
        yield
    except BaseException as error:
        learner.load_state_dict(before)
        if isinstance(error, NonFiniteError):
            raise NonFiniteError(f"{error}; the learner is back in the state before it") from error
        raise


def _copy(state: Any) -> Any:
    """A deep copy of a state. Tensors are cloned one by one: `copy.deepcopy`, which looks for what is shared, takes eight times as long."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(map(_copy, state))
    return copy.deepcopy(state)
