"""Notebook parameters: typed, checked, and explained in one paragraph when wrong.

papermill injects `-p flag true` as the string "true" and only warns about names it does not know; `validate` converts the first
and rejects the second.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .errors import ExplainedError

__all__ = ["NotebookParameters", "ParameterError", "injected_names", "override"]

T = TypeVar("T")


class ParameterError(ExplainedError, ValueError):
    """A notebook parameter with a wrong name, type or value."""


class NotebookParameters(BaseModel):
    """Base of the parameters of one notebook; fields are the names of its parameters cell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def validate_cell(cls, namespace: Mapping[str, Any]) -> Any:
        """Check the notebook's globals(): every field, and every name that papermill injected. Returns the parameters.

        Raises ParameterError, one paragraph, naming the value, what is allowed and where to set it.
        """
        unknown = sorted(injected_names(namespace.get("In", ())) - set(cls.model_fields))
        if unknown:
            raise ParameterError(
                f"There is no parameter {', '.join(map(repr, unknown))} in this notebook; it has {', '.join(cls.model_fields)}. "
                "Nothing was run: papermill itself would only have warned and used the defaults."
            )
        given = {name: namespace[name] for name in cls.model_fields if name in namespace}
        try:
            return cls(**given)
        except ValidationError as error:
            raise ParameterError(" ".join(cls._explain(problem) for problem in error.errors())) from None

    @classmethod
    def _explain(cls, problem: Mapping[str, Any]) -> str:
        name = str(problem["loc"][0]) if problem["loc"] else "parameters"
        described = cls.model_fields[name].description if name in cls.model_fields else None
        message = problem["msg"].removeprefix("Value error, ")
        note = f" {name} is {described.rstrip('.')}." if described else ""
        return (
            f"{name}={problem['input']!r} is not allowed: {message.rstrip('.')}.{note} "
            f"Set it with papermill -p {name} VALUE or in the notebook's parameters cell."
        )


def injected_names(cells: Sequence[str]) -> set[str]:
    """Names assigned in the cells that papermill injected (they begin with '# Parameters'); cells: sources run so far."""
    names: set[str] = set()
    for source in cells:
        if source.lstrip().startswith("# Parameters"):
            for node in ast.parse(source).body:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return names


def parse_list(value: Any) -> Any:
    """A list given on papermill's command line: JSON or comma-separated text; other values pass unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not valid JSON ({error})") from None
    return [part.strip() for part in text.split(",") if part.strip()]


def override(settings: T, changes: Mapping[str, Any]) -> T:
    """A frozen dataclass with fields replaced by dotted names, {"policy.updates": 100}, each checked against its type.

    Raises ValueError naming the field and what exists there.
    """
    for dotted, value in changes.items():
        settings = _override(settings, dotted.split("."), value, dotted)
    return settings


def _override(settings: Any, names: list[str], value: Any, dotted: str) -> Any:
    fields = {f.name for f in dataclasses.fields(settings)} if dataclasses.is_dataclass(settings) else set()
    if names[0] not in fields:
        raise ValueError(f"no setting {dotted!r}; {type(settings).__name__} has {', '.join(sorted(fields)) or 'none'}")
    if len(names) > 1:
        inner = _override(getattr(settings, names[0]), names[1:], value, dotted)
        return dataclasses.replace(settings, **{names[0]: inner})
    hint = get_type_hints(type(settings))[names[0]]
    try:
        checked = TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"setting {dotted}={value!r}: {error.errors()[0]['msg']}") from None
    return dataclasses.replace(settings, **{names[0]: checked})
