"""The scales of a notebook: its folder's scales.toml, a line a setting and a column a scale, checked when it is read.

An array has one value for each of the file's `columns`; a value that is no array holds in all of them. "-" stands for the setting's own
default and "None" for none. An optional part exists in the columns in which one of its lines says something.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pwmlib.errors import ExplainedError
from pwmlib.settings import SettingError

from .parameters import override
from .paths import read_toml, shown

T = TypeVar("T")


class ScaleError(ExplainedError):
    """A table of scales that is not what it should be; names its file and the setting."""


def read_scales(path: Path, kind: type[T], *, parameters: bool = False) -> dict[str, T]:
    """The settings of each column.

    Args:
        path: The file.
        kind: Whose settings they are; its defaults are what "-" stands for.
        parameters: Whether the table [parameters] is read, what parameters of the notebook are where they say nothing, and not all others.

    Raises:
        ScaleError: Names the file, the setting, and what is allowed there.
    """
    file, content = shown(path), read_toml(path, ScaleError)
    columns = content.pop("columns", None)
    if not columns or not isinstance(columns, list):
        raise ScaleError(f"{file}: columns={columns!r} is not allowed: must be a list of the scales' names")
    beside = content.pop("parameters", {})
    table = beside if parameters else content
    try:
        return {name: override(kind(), _column(table, i, columns), make_parts=True) for i, name in enumerate(columns)}
    except SettingError as error:
        raise ScaleError(f"{file}: {error}") from None


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
