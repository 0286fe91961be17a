"""Notebook parameters: typed, checked, and explained in one paragraph when wrong.

papermill injects `-p flag true` as the string "true" and only warns about names it does not know; `validate` converts the first
and rejects the second.
"""

import ast
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, ValidationInfo, field_validator

from companion.running.runs import plain
from pwmlib.errors import ExplainedError
from pwmlib.settings import SettingError, first_problem

T = TypeVar("T")


class ParameterError(ExplainedError, ValueError):
    """A notebook parameter with a wrong name, type or value."""


class NotebookParameters(BaseModel):
    """Base of the parameters of one notebook; fields are the names of its parameters cell, with the defaults there."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):
            raise ValueError("must not be True or False")
        # papermill gives `-p x None` as a string; 0 and "" stood for None before.
        undecided = cls.model_fields[info.field_name].default is None and value in (None, "None", "null", "", 0, "0")
        return None if undecided else value

    @classmethod
    def validate_cell(cls, namespace: Mapping[str, Any]) -> Any:
        """Check the notebook's globals(): every field, and every name that papermill injected. Returns the parameters.

        Raises ParameterError, one paragraph about the first wrong value: what is allowed, and the flag that sets it.
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
            raise ParameterError(cls._explain(first_problem(error))) from None

    @classmethod
    def _explain(cls, problem: SettingError) -> str:
        if problem.example:
            note, flag = "", f"overrides {shlex.quote(json.dumps(problem.example))} (what the scale has)"
        else:
            field = cls.model_fields[problem.field]
            default = json.dumps(field.default) if field.default is not None and not isinstance(field.default, str) else str(field.default)
            note, flag = f" {problem.field} is {field.description.rstrip('.')}.", f"{problem.field} {shlex.quote(default)} (the default)"
        return f"{problem}.{note} Set it with papermill -p {flag} or in the notebook's parameters cell."


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
    """A list given on papermill's command line: JSON, comma-separated text or one number; other values pass unchanged."""
    if not isinstance(value, str):
        return [value] if isinstance(value, (int, float)) else value
    text = value.strip()
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not valid JSON ({error})") from None
    return [part.strip() for part in text.split(",") if part.strip()]


def override(settings: T, changes: Mapping[str, Any], *, prefix: str = "", make_parts: bool = False) -> T:
    """Settings with fields replaced by dotted names, {"policy.updates": 100}, all at once.

    Args:
        settings: What they are now.
        changes: What they become, by name.
        prefix: What stands before each name in errors.
        make_parts: An optional part that is not there begins with its defaults when one of its settings is given.

    Raises:
        SettingError: Names the setting, with what it is now as the example.
    """
    if not changes:
        return settings
    here: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    known = [f.name for f in fields(settings)] if is_dataclass(settings) else []
    for dotted, value in changes.items():
        name, _, rest = dotted.partition(".")
        if name not in known:
            there = f"{type(settings).__name__} has {', '.join(known)}" if known else f"{prefix[:-1]} is {settings!r}"
            nearest = get_close_matches(name, known, n=1, cutoff=0) if known else []
            example = _example(settings, nearest, prefix) or {prefix[:-1]: plain(settings)}
            raise SettingError(prefix + dotted, value, f"no setting {prefix + dotted!r}; {there}", "", example)
        if rest:
            below.setdefault(name, {})[rest] = value
        elif isinstance(value, Mapping) and is_dataclass(_part(settings, name, make_parts)):
            below.setdefault(name, {}).update(value)
        else:
            here[name] = value
    for name, inner in below.items():
        part = here.get(name, _part(settings, name, make_parts))
        here[name] = override(part, inner, prefix=f"{prefix}{name}.", make_parts=make_parts)
    try:
        made = replace(settings, **here)
    except SettingError as error:
        example = _example(settings, [error.field] if error.field in here else list(here), prefix)
        raise SettingError(prefix + error.name, error.value, error.allowed, "", example) from None
    # An int given for a float becomes one here, unlike in Python code: the hashes of runs tell them apart.
    hints = get_type_hints(type(settings))
    return replace(made, **{name: TypeAdapter(hints[name]).validate_python(getattr(made, name)) for name in here})


def _part(settings: Any, name: str, make: bool) -> Any:
    """The value of a setting; make: of an optional part that is not there, its defaults."""
    value = getattr(settings, name)
    kinds = get_args(get_type_hints(type(settings))[name]) if make and value is None else ()
    return next((kind() for kind in kinds if is_dataclass(kind)), value)


def _example(settings: Any, names: Sequence[str], prefix: str) -> dict[str, Any]:
    """The present values of settings by dotted name; of one that has settings itself, its first."""
    found = {}
    for name in names:
        value, dotted = getattr(settings, name), prefix + name
        while is_dataclass(value):
            name = fields(value)[0].name
            value, dotted = getattr(value, name), f"{dotted}.{name}"
        found[dotted] = plain(value)
    return found
