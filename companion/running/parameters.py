"""Notebook parameters and the settings of their scales: typed, checked, and explained in one paragraph when wrong.

papermill gives `-p flag true` as the string "true" and only warns about names it does not know; `validate_cell` converts the first
and rejects the second.

A folder's scales.toml has a line a setting and a column a scale. An array has one value for each of the file's `columns`; a value that is
no array holds in all of them. "-" stands for the setting's own default and "None" for none. An optional part exists in the columns in which
one of its lines says something.
"""

import ast
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, ValidationInfo, field_validator

from companion.running.paths import read_toml, shown
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
    trees = [ast.parse(source) for source in cells if source.lstrip().startswith("# Parameters")]
    names = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def parse_list(value: Any) -> Any:
    """A list given on papermill's command line: JSON, comma-separated text or one number; other values pass unchanged."""
    if not isinstance(value, str):
        return [value] if isinstance(value, (int, float)) else value
    text = value.strip()
    if text.startswith(("[", "{")):
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


def read_scales(path: Path, kind: type[T], *, parameters: bool = False) -> dict[str, T]:
    """The settings of each column.

    Args:
        path: The file.
        kind: Whose settings they are; its defaults are what "-" stands for.
        parameters: Whether the table [parameters] is read, what parameters of the notebook are where they say nothing, and not all others.

    Raises:
        ExplainedError: Names the file, the setting, and what is allowed there.
    """
    file, content = shown(path), read_toml(path)
    columns = content.pop("columns", None)
    if not columns or not isinstance(columns, list):
        raise ExplainedError(f"{file}: columns={columns!r} is not allowed: must be a list of the scales' names")
    beside = content.pop("parameters", {})
    table = beside if parameters else content
    try:
        return {name: override(kind(), _column(table, i, columns), make_parts=True) for i, name in enumerate(columns)}
    except SettingError as error:
        raise ExplainedError(f"{file}: {error}") from None


def _column(table: Mapping[str, Any], index: int, columns: list[str], prefix: str = "") -> dict[str, Any]:
    """What a table says of one column, as overrides."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            value = _column(value, index, columns, f"{prefix}{name}.") or "-"
        elif isinstance(value, list):
            if len(value) != len(columns):
                raise SettingError(prefix + name, value, f"must have a value for each of {', '.join(columns)}")
            value = value[index]
        if value != "-":
            found[name] = None if value == "None" else value
    return found
