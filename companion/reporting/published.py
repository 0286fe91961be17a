"""The authors' numbers: what is printed or recomputed (data/published), and their result files, from a folder that the user names.

The files are exports of an experiment tracker and carry its traps: a column for every run three times over (value, minimum, maximum), steps
that are logged at other moments in every run, runs of unequal length, an unnamed index column, a row whose last columns are shifted.
"""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from companion.running.paths import DATA
from companion.running.runs import plain
from pwmlib.errors import ExplainedError

from .cells import iqm

PUBLISHED = DATA / "published"


class ReleasedFilesError(ExplainedError):
    """A released file that is missing, or is not what it should be."""


def published_table(name: str) -> pd.DataFrame:
    """Read a table of data/published."""
    return pd.read_csv(PUBLISHED / f"{name}.csv")


def printed_settings(pipeline: Literal["multitask", "single_task", "offline"]) -> dict[str, Any]:
    """The paper's hyper-parameters by the dotted names of a pipeline's settings."""
    table = published_table("hyperparameters").dropna(subset=pipeline)
    return {name: json.loads(value) for names, value in zip(table[pipeline], table["value"], strict=True) for name in names.split()}


def published_scores(task_set: Literal["mt30", "mt80"] = "mt80") -> pd.DataFrame:
    """One line a task: PWM, PWM with H = 3 and TD-MPC2, scores in [0, 100]; the index is the task's name."""
    table = published_table("multitask_per_task")
    table = table[table["set"] == task_set].set_index("task")
    columns = {"pwm": "PWM, published", "pwm_h3": "PWM H = 3, published", "tdmpc2_mean": "TD-MPC2, published"}
    return 100 * table[list(columns)].rename(columns=columns)


def published_aggregates(task_set: Literal["mt30", "mt80"] = "mt80") -> pd.DataFrame:
    """IQM of PWM and TD-MPC2 with 95 % intervals over whole tasks; columns method, iqm, lo, hi."""
    table = published_table("multitask_aggregate")
    name = task_set.upper()
    wanted = {f"{name} PWM": "PWM, published", f"{name} TD-MPC2": "TD-MPC2, published", f"{name} PWM H3": "PWM H = 3, published"}
    rows = table[table["set"].isin(wanted) & (table["variant"] == "tasks")]
    return rows.assign(method=rows["set"].map(wanted))[["method", "iqm", "lo", "hi"]].reset_index(drop=True)


def compare(
    settings: object, paper: object, printed: dict[str, object], deviations: dict[str, tuple[object, str]], prefix: str = ""
) -> pd.DataFrame:
    """Settings that are not what the paper printed, and why.

    Args:
        settings: those of this run.
        paper: those of scale paper.
        printed: the paper's own values, by dotted names.
        deviations: name -> the value that is here, and why.
        prefix: what the dotted names of these settings begin with.

    Returns:
        One row a difference: setting, here, paper, why.
    """
    ours, reference = ({n: plain(v) for n, v in dotted(s, prefix)} for s in (settings, paper))
    rows = []
    for name in {**ours, **{n: None for n in printed if n.startswith(prefix)}}:
        here, wanted = ours.get(name, "-"), printed.get(name, reference.get(name, "-"))
        value, why = deviations.get(name, (None, ""))
        if here != wanted:
            rows.append((name, str(here), str(wanted), why if here == value else ""))
    return pd.DataFrame(rows, columns=["setting", "here", "paper", "why"])


def dotted(settings: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The numbers of nested settings with their dotted names."""
    for field_ in fields(settings):
        value = getattr(settings, field_.name)
        if is_dataclass(value):
            yield from dotted(value, f"{prefix}{field_.name}.")
        else:
            yield f"{prefix}{field_.name}", value


CURVES = tuple(published_table("released_files").astype({"figure": str}).itertuples(index=False))
"""Released files of training curves: figure, label, task, file, every (the authors' notebooks keep every so-many-th row)."""

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
