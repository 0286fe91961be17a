"""Parameters that several notebooks have, and how lists of names are read."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pandas as pd
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from companion.running.jobs import Engine, default_workers
from companion.running.runs import resolve_device
from pwmlib.settings import SettingError

from .parameters import NotebookParameters, parse_list
from .paths import writable_folder

Scale = Annotated[Literal["quick", "laptop", "paper"], Field(description="how much is computed: quick (a check), laptop, or paper")]

Names = Annotated[list[str], BeforeValidator(parse_list)]
Overrides = Annotated[dict[str, Any], BeforeValidator(lambda value: parse_list(value) if value and isinstance(value, str) else value or {})]


def names_of(known: Sequence[str], kind: str, *, some: bool = False) -> Any:
    """The type of a list of names that are all among the known, each once. kind: as errors have it; some: an empty list is an error."""
    return Annotated[Names, AfterValidator(lambda names: all_of(names, known, kind) if names or some else names)]


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("no path contains a null character")
    return value


Folder = Annotated[str, AfterValidator(_path)]


class Common(NotebookParameters):
    """Parameters that every notebook has."""

    notebook: ClassVar[str]
    """Its file's name, without the ending."""
    in_the_name: ClassVar[frozenset[str]] = frozenset()
    """Parameters that the names of its figures tell already."""

    scale: Scale = "quick"
    runs_dir: Folder = Field("runs", min_length=1, description="the folder of runs; finished ones are not repeated")
    figures_dir: Folder | None = Field(None, description="the folder of figures; None means figures/ (figures/quick at scale quick)")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda' or a torch device")
    overrides: Overrides = Field({}, description='settings of the scale to replace, by dotted name, e.g. {"policy.updates": 100}')

    @field_validator("device")
    @classmethod
    def _usable(cls, value: str) -> str:
        resolve_device(value)
        return value

    @model_validator(mode="after")
    def _overrides_exist(self) -> Self:
        self.scaled()
        return self

    def scaled(self) -> Any:
        """The numbers of the scale with this notebook's changes; a notebook without any refuses overrides. Raises SettingError."""
        if self.overrides:
            raise SettingError("overrides", self.overrides, "this notebook has no settings beyond its parameters")

    def runs_folder(self) -> Path:
        """The folder of runs, created. Raises ExplainedError."""
        return writable_folder(self.runs_dir, "runs_dir")

    def figures_folder(self) -> Path:
        """The folder of figures, created. Raises ExplainedError."""
        default = "figures/quick" if self.scale == "quick" else "figures"
        return writable_folder(self.figures_dir or default, "figures_dir")

    def provenance(self) -> dict[str, Any]:
        """What `figures.save_figure` is told of these parameters: the command, and those changed ones that the picture depends on."""
        values = self.model_dump()
        changed = {name: value for name, value in values.items() if value != type(self).model_fields[name].default}
        flags = "".join(f" -p {k} {shlex.quote(v if isinstance(v, str) else json.dumps(v))}" for k, v in changed.items() if k not in PLACES)
        told = PLACES | self.in_the_name | ({"scale"} if self.scale != "paper" else set())
        drawn = {name: value for name, value in changed.items() if name not in told}
        return {"command": f"papermill notebooks/{self.notebook}.ipynb out.ipynb{flags}", "changed": drawn}


PLACES = frozenset({"runs_dir", "figures_dir", "data_dir", "workers", "engine", "device"})
"""Parameters that say where something is computed or kept, not what."""


class OnTheCPU(Common):
    """Parameters of a notebook that does not use a GPU."""

    device: str = Field("cpu", description="'cpu' or 'auto', which is the CPU too")

    @field_validator("device")
    @classmethod
    def _cpu(cls, value: str) -> str:
        if value not in ("cpu", "auto"):
            raise ValueError("this notebook runs on the CPU; device must be 'cpu' or 'auto'")
        return value


class Robots(Common):
    """Parameters of the notebooks whose small runs are faster on a CPU, with or without a GPU at hand."""

    device: str = Field(
        "by_scale", description="'by_scale' (the CPU; at scale paper a GPU where there is one), 'auto', 'cpu' or a torch device"
    )

    engine: Engine = Field("local", description="where jobs run: local or ray")
    workers: int | None = Field(None, ge=1, le=1024, description="the number of processes; None means one per core")

    @field_validator("device")
    @classmethod
    def _usable(cls, value: str) -> str:
        return value if value == "by_scale" else super()._usable(value)

    def runner(self, progress: bool = True) -> dict[str, Any]:
        """Say where runs are computed, as experiments take it; the device as torch calls it."""
        by_scale = "auto" if self.scale == "paper" else "cpu"
        device = str(resolve_device(by_scale if self.device == "by_scale" else self.device))
        return {"device": device, "workers": self.workers or default_workers(), "engine": self.engine, "progress": progress}


def folded(title: str, table: pd.DataFrame) -> Any:
    """A table behind one line that says how many rows it has; a click opens it. Returns what Jupyter shows."""
    from IPython.display import HTML

    shown = table.to_html(index=False, na_rep="")
    return HTML(f"<details><summary>{len(table)} {title} (click to see them)</summary>\n{shown}\n</details>")


def all_of(values: list[str], known: Sequence[str], kind: str) -> list[str]:
    """The values, each once. Raises ValueError for one that is not among the known, or where there is none."""
    unknown = [v for v in values if v not in known]
    if unknown or not values:
        raise ValueError(f"no {kind} {', '.join(map(repr, unknown)) or 'given'}; known: {', '.join(known)}")
    return list(dict.fromkeys(values))
