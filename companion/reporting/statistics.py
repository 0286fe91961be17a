"""Aggregates over runs and tasks through rliable: IQM, mean, median, optimality gap, profiles, seeded intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

AGGREGATES = ("iqm", "mean", "median", "optimality_gap")


@dataclass(frozen=True)
class Aggregate:
    """One aggregate of scores. `low` and `high` are None when there is nothing to resample, and `resampled` says why."""

    name: str
    value: float
    low: float | None
    high: float | None
    runs: int
    tasks: int
    resampled: str

    def __str__(self) -> str:
        interval = f"[{self.low:.3g}, {self.high:.3g}]" if self.low is not None else "no interval"
        return f"{self.name} {self.value:.3g} {interval} ({self.runs} runs x {self.tasks} tasks; {self.resampled})"


def score_matrix(table: pd.DataFrame, score: str = "score") -> pd.DataFrame:
    """Runs in rows, tasks in columns: the layout that rliable expects (the transposed one gives wrong intervals silently).

    table: tidy, with columns task, train_seed and `score`; exactly one finite score per (task, train_seed).
    """
    missing = {"task", "train_seed", score} - set(table.columns)
    if missing:
        raise ValueError(f"score_matrix: columns {sorted(missing)} are missing; the table has {list(table.columns)}")
    doubled = table[table.duplicated(["task", "train_seed"], keep=False)]
    if len(doubled):
        first = doubled.iloc[0]
        raise ValueError(f"score_matrix: more than one score of task {first.task!r}, train_seed {first.train_seed}")
    matrix = table.pivot(index="train_seed", columns="task", values=score)
    if matrix.isna().any().any():
        seed, name = next((s, t) for t in matrix for s in matrix.index if pd.isna(matrix.at[s, t]))
        raise ValueError(f"score_matrix: no score of task {name!r}, train_seed {seed}; every run needs every task")
    if not np.isfinite(matrix.to_numpy(float)).all():
        raise ValueError("score_matrix: scores must be finite")
    return matrix


def aggregate(
    table: pd.DataFrame, names: Sequence[str] = AGGREGATES, *, score: str = "score", over: str = "runs", reps: int = 2000
) -> dict[str, Aggregate]:
    """These `AGGREGATES` of a tidy table, each with a percentile bootstrap interval of 95 %.

    over="runs" resamples training runs within each task: the uncertainty of training again. over="tasks" resamples whole tasks, all runs
    of a task together: the uncertainty of the choice of tasks (of its runs too, since another task comes with runs of its own). With one
    run, or one task, that is not defined and no interval is given.
    Scores should be normalised to about [0, 1]; the optimality gap is measured to 1.
    """
    from arch.bootstrap import IIDBootstrap
    from rliable import library, metrics

    if over not in ("runs", "tasks"):
        raise ValueError(f"aggregate: over must be 'runs' or 'tasks', got {over!r}")
    scores = score_matrix(table, score).to_numpy(float)
    runs, tasks = scores.shape

    def all_of(x: np.ndarray) -> np.ndarray:
        return np.array([getattr(metrics, f"aggregate_{name}")(x) for name in names])

    resampled, ends = f"resampled over {over}, {reps} draws", np.full((2, len(names)), None)
    if (runs if over == "runs" else tasks) < 2:
        resampled = f"no interval: one {over[:-1]} cannot be resampled"
    elif over == "runs":
        _, found = _seeded(library.get_interval_estimates, {"": scores}, all_of, reps=reps)
        ends = found[""]
    else:  # rliable's own task_bootstrap draws runs again within the drawn tasks and so counts their spread twice
        whole = IIDBootstrap(scores.T, seed=0)
        ends = whole.conf_int(lambda x: all_of(x.T), reps=reps, method="percentile")
    columns = zip(names, all_of(scores).tolist(), *ends.tolist(), strict=True)
    return {name: Aggregate(name, value, low, high, runs, tasks, resampled) for name, value, low, high in columns}


def iqm_with_interval(table: pd.DataFrame, **options: str) -> Aggregate:
    """The IQM alone; options: those of `aggregate`."""
    return aggregate(table, ("iqm",), **options)["iqm"]


def multitask_aggregates(table: pd.DataFrame) -> dict[str, Aggregate]:
    """IQM of a multi-task table's policies, with an interval over training runs, and of random behaviour, which has no runs.

    table: columns task, train_seed, score and random_score, both in [0, 100].
    """
    normalised = table.assign(score=table["score"] / 100, random_score=table["random_score"] / 100)
    once = normalised.drop_duplicates("task")
    return {"PWM": iqm_with_interval(normalised), "random": iqm_with_interval(once, score="random_score")}


def performance_profile(table: pd.DataFrame, thresholds: np.ndarray, *, score: str = "score") -> pd.DataFrame:
    """Fraction of (run, task) scores above each threshold, with intervals over runs (NaN with one run).

    Returns columns threshold, fraction, low, high.
    """
    from rliable import library

    scores = score_matrix(table, score).to_numpy(float)
    if scores.shape[0] < 2:
        fraction = (scores[None] > thresholds[:, None, None]).mean((1, 2))
        return pd.DataFrame({"threshold": thresholds, "fraction": fraction, "low": np.nan, "high": np.nan})
    profile, interval = _seeded(library.create_performance_profile, {"": scores}, thresholds)
    return pd.DataFrame({"threshold": thresholds, "fraction": profile[""], "low": interval[""][0], "high": interval[""][1]})


def _seeded(function, *args, **kwargs):
    """Call with numpy's global generator seeded (rliable 1.2 draws from it whatever random_state it is given), then restore it."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        return function(*args, **kwargs)
    finally:
        np.random.set_state(state)  # noqa: NPY002
