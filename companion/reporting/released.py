"""The authors' released result files, read from a folder that the user names: training curves and many-task scores.

The files are exports of an experiment tracker and carry its traps: a column for every run three times over (value, minimum, maximum), steps
that are logged at other moments in every run, runs of unequal length, an unnamed index column, a row whose last columns are shifted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from pwmlib.errors import ExplainedError

__all__ = [
    "CURVES",
    "ReleasedCurve",
    "ReleasedFilesError",
    "aligned",
    "iqm_curve",
    "many_task_scores",
    "overlap",
    "peak_and_final",
    "planner_scores",
    "training_runs",
]


class ReleasedFilesError(ExplainedError):
    """A released file that is missing, or is not what it should be."""


@dataclass(frozen=True)
class ReleasedCurve:
    """One file of training curves and where the paper draws it."""

    figure: str
    label: str
    task: str
    file: str
    every: int = 10
    """The authors' notebooks keep every so-many-th row."""


CURVES: tuple[ReleasedCurve, ...] = (
    ReleasedCurve("13", "PWM", "hopper", "pwm_hopper.csv"),
    ReleasedCurve("13", "PWM", "ant", "pwm_ant.csv"),
    ReleasedCurve("13", "PWM", "anymal", "pwm_anymal.csv"),
    ReleasedCurve("13", "PWM", "humanoid", "pwm_humanoid.csv", 50),
    ReleasedCurve("13", "SHAC", "hopper", "shac_hopper_time.csv", 1),
    ReleasedCurve("13", "PPO", "hopper", "ppo_hopper_time.csv", 1),
    ReleasedCurve("7a", "PPO", "hopper", "ppo_hopper_stiff.csv"),
    ReleasedCurve("7a", "SHAC", "hopper", "shac_hopper_stiff.csv"),
    ReleasedCurve("7a", "PWM", "hopper", "pwm_hopper_stiff.csv"),
    ReleasedCurve("7b", "32", "ant", "pwm_ant_bsz32.csv"),
    ReleasedCurve("7b", "128", "ant", "pwm_ant_bsz128.csv"),
    ReleasedCurve("7b", "512", "ant", "pwm_ant_bsz512.csv"),
    ReleasedCurve("7b", "1024", "ant", "pwm_ant_bsz1024.csv"),
    ReleasedCurve("8a", "ReLU", "ant", "pwm_ant_simple.csv"),
    ReleasedCurve("8a", "LayerNorm + Mish", "ant", "pwm_ant_no_simnorm.csv"),
    ReleasedCurve("8a", "LayerNorm + Mish + SimNorm", "ant", "pwm_ant.csv"),
    *(
        ReleasedCurve("17", label, task, f"pwm_{task}{suffix}.csv")
        for task in ("hopper", "anymal", "humanoid")
        for label, suffix in (("ReLU", "_relu"), ("LayerNorm + Mish", "_mish"), ("LayerNorm + Mish + SimNorm", ""))
    ),
)
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
    """IQM over the `aligned` runs."""
    together = aligned(runs, every)
    return pd.Series(stats.trim_mean(together.to_numpy(), 0.25, axis=1), together.index)


def peak_and_final(path: Path, every: int = 10) -> dict[str, float]:
    """runs, peak_iqm, final_iqm of a file of training curves."""
    runs = training_runs(path)
    curve = iqm_curve(runs, every)
    return {"runs": runs.shape[1], "peak_iqm": float(curve.max()), "final_iqm": float(curve.iloc[-1])}


def overlap(first: Path, second: Path) -> pd.DataFrame:
    """How much two files hold the same runs: for each run of the first that begins like one of the second, row by row (each without its
    gaps), columns run, other_run, rows (that both have), equal_rows, first_different (empty if none)."""
    lines = []
    for name, a in training_runs(first).items():
        for other, b in training_runs(second).items():
            x, y = a.dropna().to_numpy(), b.dropna().to_numpy()
            rows = min(len(x), len(y))
            same = x[:rows] == y[:rows]
            if rows and same[: max(1, rows // 4)].all():
                different = np.flatnonzero(~same)
                found = {"equal_rows": int(same.sum()), "first_different": int(different[0]) if len(different) else None}
                lines.append({"run": name, "other_run": other, "rows": rows, **found})
    return pd.DataFrame(lines, columns=["run", "other_run", "rows", "equal_rows", "first_different"])


def many_task_scores(path: Path) -> pd.Series:
    """Score in [0, 1] of each task: return / 1000, or MetaWorld success; one policy a task, mean of 10 evaluation episodes.

    Only the policy's own columns are read: in one row the columns after them are shifted. Tasks may be missing.
    """
    table = _read(path)
    missing = {"task", "episode_reward", "episode_success"} - set(table.columns)
    if missing:
        raise ReleasedFilesError(f"{path}: columns {sorted(missing)} are missing; it has {list(table.columns)}")
    return _scores(table, path).set_index("task")["score"]


def planner_scores(path: Path) -> pd.DataFrame:
    """Columns task, episode, score in [0, 1]: TD-MPC2's evaluation episodes (called seeds in the file), one model."""
    table = _read(path)
    missing = {"task", "seed", "episode_reward", "episode_success"} - set(table.columns)
    if missing:
        raise ReleasedFilesError(f"{path}: columns {sorted(missing)} are missing; it has {list(table.columns)}")
    return _scores(table.rename(columns={"seed": "episode"}), path)[["task", "episode", "score"]]


def _scores(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    of_metaworld = table["task"].str.startswith("mw-")
    score = table["episode_success"].where(of_metaworld, table["episode_reward"] / 1000)
    if not score.between(0, 1.0001).all():
        row = table[~score.between(0, 1.0001)].iloc[0]
        raise ReleasedFilesError(f"{path}: {row['task']} has return {row['episode_reward']} and success {row['episode_success']}: no score")
    return table.assign(score=score)
