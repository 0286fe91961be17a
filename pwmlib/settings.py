"""Settings that check themselves: `@settings` makes a frozen dataclass whose fields are validated however it is made.

Construction, `dataclasses.replace` and overrides of the notebooks all go through the same check, before anything runs.
"""

import functools
import re
from dataclasses import fields
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass

from .errors import ExplainedError

__all__ = [
    "NUMBER", "Beta", "Count", "Counts", "Fraction", "NonNegative", "Positive", "Real", "SettingError", "Several", "Whole", "first_problem",
    "settings",
]  # fmt: skip

T = TypeVar("T")


class SettingError(ExplainedError, ValueError):
    """A value is not allowed: `name` (dotted, of a parameter or setting), `value`, `allowed` in words, `owner`: whose setting it is.

    example: for an override, names and values that could be given instead.
    """

    def __init__(self, name: str, value: Any, allowed: str, owner: str = "", example: dict[str, Any] | None = None):
        super().__init__(name, value, allowed, owner, example)  # all of them, so that a copy from another process can be made
        self.name, self.value, self.allowed, self.owner, self.example = name, value, allowed, owner, example

    @property
    def field(self) -> str:
        """This is the name without an index into its value."""
        return self.name.split("[")[0]

    def __str__(self) -> str:
        given = repr(self.value)
        given = given if len(given) <= 200 else f"{given[:200]}..."
        return f"{self.owner}{'.' if self.owner else ''}{self.name}={given} is not allowed: {self.allowed.rstrip('.')}"


def _number(value: Any, check: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not True or False")
    checked = check(value)
    return value if type(value) is int else checked  # 1 stays 1 where 1.0 is meant: the hash of a run's parameters tells them apart


NUMBER = WrapValidator(_number)
"""For a field with bounds of its own: no truth value."""

_MOST = 10**9  # far from where float32 ends
Whole = Annotated[int, Field(ge=0, le=_MOST), NUMBER]
Count = Annotated[int, Field(ge=1, le=_MOST), NUMBER]
Several = Annotated[int, Field(ge=2, le=_MOST), NUMBER]
Real = Annotated[float, Field(ge=-_MOST, le=_MOST), NUMBER]
NonNegative = Annotated[float, Field(ge=0, le=_MOST), NUMBER]
Positive = Annotated[float, Field(gt=0, le=_MOST), NUMBER]
Fraction = Annotated[float, Field(ge=0, le=1), NUMBER]
Beta = Annotated[float, Field(ge=0, lt=1), NUMBER]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
"""At least one count."""


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a frozen dataclass whose fields are checked against their annotations when it is made.

    A check of several fields belongs in its `__post_init__`, as a SettingError that names one of them.
    Raises SettingError naming the first wrong field, and TypeError for fields that are missing or do not exist.
    """
    made = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(cls)
    init, names = made.__init__, [field.name for field in fields(made)]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args[len(names) :], **dict(zip(names, args, strict=False)), **kwargs)
        except ValidationError as error:
            raise first_problem(error, cls.__name__) from None

    made.__init__ = checked
    return cls  # which is `made`: pydantic changes the class that it is given


def first_problem(error: ValidationError, owner: str = "") -> Exception:
    """Give the first problem that pydantic found, as a SettingError; a TypeError where an argument is missing or unknown."""
    problem = error.errors()[0]
    first, *rest = problem["loc"] or ("",)
    if not rest and ("argument" in problem["type"] or problem["type"] == "missing"):
        return TypeError(f"{owner}: {problem['msg'].lower()} {first!r}")
    key = rest[-1:] == ["[key]"]
    name = f"{first}{''.join(f'[{part!r}]' for part in ([] if key else rest))}"
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        inner = f"{name}.{cause.name}" if name else cause.name
        return SettingError(inner, cause.value, cause.allowed, owner, cause.example)
    allowed = re.sub(r"^\w+ should ", "each name must " if key else "must ", problem["msg"].removeprefix("Value error, "))
    return SettingError(name, problem["input"], allowed, owner)
