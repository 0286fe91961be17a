"""Where the numbers of a figure come from: published tables, the authors' released files, our own results."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from companion.reporting.published import PUBLISHED
from companion.running.results import TableNotRecordedError, results_path
from pwmlib.errors import ExplainedError

Source = Literal["published", "released", "ours"]
SOURCES: tuple[Source, ...] = get_args(Source)
MT80 = "papermill notebooks/03_mt80.ipynb out.ipynb -p tasks 80"


class NothingToDraw(ExplainedError):
    """Why a figure cannot be drawn from a source."""


def made_by(table: str) -> str:
    """The command that makes a table of our results."""
    if table.startswith("double_pendulum"):
        return "papermill notebooks/01_double_pendulum.ipynb out.ipynb -p scale laptop"
    if table.startswith("multitask_"):
        what = table.removeprefix("multitask_")
        return MT80 if what == "80" else f"{MT80} -p scale laptop -p comparisons '[\"{what}\"]'"
    experiment = table.removeprefix("single_task_").removesuffix("_curves")
    return f"python -m companion.record {'ball_wall' if experiment.startswith('ball_wall') else experiment}"


@dataclass
class Inputs:
    """Where a figure's numbers come from; notes every file that is read."""

    source: Source
    released_dir: Path | None = None
    paths: list[Path] = field(default_factory=list)

    def ours(self, name: str) -> pd.DataFrame:
        """Read a table of data/results."""
        try:
            return self._table(results_path(name))
        except TableNotRecordedError:
            raise NothingToDraw(f"{name}.csv is missing. Not run yet. It is made by: {made_by(name)}") from None

    def published(self, name: str) -> pd.DataFrame:
        """Read a table of data/published."""
        return self._table(PUBLISHED / f"{name}.csv")

    def released(self, name: str) -> Path:
        """Find one of the authors' files."""
        if self.released_dir is None:
            raise NothingToDraw("released_dir is not given: the folder with the authors' result files (README, 'The released files').")
        path = self.released_dir / name
        if not path.is_file():
            raise NothingToDraw(f"{name} is not in {self.released_dir}.")
        self.paths.append(path)
        return path

    def only(self, *sources: Source, why: str) -> None:
        """Raise NothingToDraw for the other sources."""
        if self.source not in sources:
            raise NothingToDraw(why)

    def _table(self, path: Path) -> pd.DataFrame:
        self.paths.append(path)
        return pd.read_csv(path)
