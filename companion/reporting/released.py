"""The authors' released result files, read from a folder that the user names: training curves and many-task scores.

The files are exports of an experiment tracker and carry its traps: a column for every run three times over (value, minimum, maximum), steps
that are logged at other moments in every run, runs of unequal length, an unnamed index column, a row whose last columns are shifted.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pwmlib.errors import ExplainedError

from .cells import iqm
from .published import published_table


class ReleasedFilesError(ExplainedError):
    """A released file that is missing, or is not what it should be."""


@dataclass(frozen=True)
class ReleasedCurve:
    """One file of training curves and where the paper draws it."""

    figure: str
    label: str
    task: str
    file: str
    every: int
    """The authors' notebooks keep every so-many-th row."""


CURVES = tuple(ReleasedCurve(*row) for row in published_table("released_files").astype({"figure": str}).itertuples(index=False))
"""Every file of training curves that we know of; a folder may hold some of them."""

_AXES = ("Step", "global_step", "Relative Time (Process)")
_VALUES = ("rewards", "rewards/step", "rewards/time", "rewards/iter")


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ReleasedFilesError(f"{path}: no such file; released_dir must be the folder with the authors' result files")
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ReleasedFilesError(f"{path}: not a CSV table ({error})") from None


def training_runs(path: Path) -> pd.DataFrame:
    """The training return of every run, one column a run; the index is named after what it counts: environment steps, or seconds.

    Values are as logged, with gaps where another run was logged. Minima, maxima and step counters of the tracker are left out.
    """
    table = _read(path)
    axis = next((c for c in table.columns if c in _AXES), None)
    names = [c for c in table.columns if c.rpartition(" - ")[2] in _VALUES]
    if axis is None or not names:
        raise ReleasedFilesError(
            f"{path}: expected a column of {', '.join(_AXES)} and columns '<run> - rewards', found {list(table.columns)[:4]}"
        )
    runs = table.set_index(axis)[names].apply(pd.to_numeric, errors="coerce").sort_index()
    if runs.notna().sum().min() == 0:
        raise ReleasedFilesError(f"{path}: a run without a single number: {runs.notna().sum().idxmin()}")
    runs.index.name = "seconds" if "Time" in axis else "environment steps"
    return runs.set_axis([c.rpartition(" - ")[0] for c in names], axis=1)


def aligned(runs: pd.DataFrame, every: int = 10) -> pd.DataFrame:
    """Gaps filled in between, from where all runs have begun, every so-many-th row; as the authors' notebooks do.

    A run that ended earlier counts with its last value to the end.
    """
    return runs.interpolate().dropna().iloc[::every]


def iqm_curve(runs: pd.DataFrame, every: int = 10) -> pd.Series:
    """Take the IQM over the `aligned` runs."""
    together = aligned(runs, every)
    return pd.Series(iqm(together.to_numpy()), together.index)


def many_task_scores(path: Path) -> pd.Series:
    """Score in [0, 1] of each task: return / 1000, or MetaWorld success; one policy a task, mean of 10 evaluation episodes.

    Only the policy's own columns are read: in one row the columns after them are shifted. Tasks may be missing.
    """
    return _scores(path).set_index("task")["score"]


def planner_scores(path: Path) -> pd.DataFrame:
    """Columns task, episode, score in [0, 1]: TD-MPC2's evaluation episodes (called seeds in the file), one model."""
    return _scores(path, "seed").rename(columns={"seed": "episode"})[["task", "episode", "score"]]


def _scores(path: Path, *needed: str) -> pd.DataFrame:
    table = _read(path)
    if missing := {"task", "episode_reward", "episode_success", *needed} - set(table.columns):
        raise ReleasedFilesError(f"{path}: columns {sorted(missing)} are missing; it has {list(table.columns)}")
    of_metaworld = table["task"].str.startswith("mw-")
    score = table["episode_success"].where(of_metaworld, table["episode_reward"] / 1000)
    for row in table[~score.between(0, 1.0001)].to_dict("records"):
        raise ReleasedFilesError(f"{path}: {row['task']} has return {row['episode_reward']} and success {row['episode_success']}: no score")
    return table.assign(score=score)
