"""The paper's aggregates, computed again from the authors' released files, beside the project's stored numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from companion.reporting.published import PUBLISHED, published_single_task
from companion.reporting.released import (
    CURVES,
    ReleasedCurve,
    ReleasedFilesError,
    aligned,
    iqm_curve,
    many_task_scores,
    planner_scores,
    training_runs,
)
from companion.reporting.statistics import aggregate, iqm_cell

__all__ = ["released_aggregates"]

TOLERANCE = 0.005


def released_aggregates(folder: Path) -> pd.DataFrame:
    """IQMs of Fig. 5, 6 and 13 from a folder with the authors' files; files that are not there are left out.

    Columns: quantity, computed, low, high (95 %), interval ("over tasks", "over evaluation episodes", "over runs", or why there is
    none), stored (the same number in data/published) and agrees (within 0.5 %).
    Raises ReleasedFilesError where the folder has none of the files.
    """
    lines = [line for task_set in ("mt30", "mt80") for line in _many_tasks(folder, task_set)]
    lines += [line for curve in CURVES if curve.figure == "13" and (folder / curve.file).is_file() for line in _robot(folder, curve)]
    if not lines:
        raise ReleasedFilesError(f"{folder}: none of the authors' result files is here, e.g. mt80_results.csv or pwm_hopper.csv")
    table = pd.DataFrame(lines)
    return table.assign(agrees=(table["computed"] / table["stored"] - 1).abs() <= TOLERANCE)


def _many_tasks(folder: Path, task_set: str) -> list[dict[str, object]]:
    files = [folder / f"{task_set}_results.csv", folder / f"tdmpc2_{task_set}_scores.csv"]
    if not all(path.is_file() for path in files):
        return []
    name = task_set.upper()
    pwm = many_task_scores(files[0]).rename("score").reset_index().assign(train_seed=0)
    planner = planner_scores(files[1]).rename(columns={"episode": "train_seed"})
    stored = pd.read_csv(PUBLISHED / "multitask_aggregate.csv").drop_duplicates("set").set_index("set")["iqm"]
    found = [("PWM", pwm, "tasks"), ("TD-MPC2", planner, "tasks"), ("TD-MPC2", planner, "runs")]
    lines = []
    for method, table, over in found:
        a = aggregate(table, over=over)["iqm"]
        interval = {"tasks": "over tasks", "runs": "over evaluation episodes of one model"}[over]
        quantity = f"{name}, {method}, IQM of scores"
        lines.append(_line(quantity, a.value, stored[f"{name} {method}"], a.low, a.high, interval))
    ratio = lines[0]["computed"] / lines[1]["computed"]
    stored_ratio = stored[f"{name} PWM"] / stored[f"{name} TD-MPC2"]
    return [*lines, _line(f"{name}, PWM / TD-MPC2", ratio, stored_ratio, interval="none: one policy a task, one planner")]


def _robot(folder: Path, curve: ReleasedCurve) -> list[dict[str, object]]:
    runs = training_runs(folder / curve.file)
    together, middle = aligned(runs, curve.every), iqm_curve(runs, curve.every)
    stored = published_single_task().set_index(["algorithm", "task"]).loc[(curve.label.lower(), curve.task)]
    lines = []
    for point, row in (("at the peak", int(middle.to_numpy().argmax())), ("at the end", -1)):
        cell = iqm_cell(together.iloc[row])
        column = {"at the peak": "peak_iqm", "at the end": "final_iqm"}[point]
        quantity = f"{curve.task}, {curve.label}, IQM of returns {point}"
        lines.append(_line(quantity, cell.value, stored[column], cell.low, cell.high, f"over {runs.shape[1]} runs"))
    return lines


def _line(
    quantity: str, computed: float, stored: float, low: float | None = None, high: float | None = None, interval: str = ""
) -> dict[str, object]:
    return {"quantity": quantity, "computed": computed, "low": low, "high": high, "interval": interval, "stored": stored}
