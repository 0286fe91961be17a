"""The paper's aggregates, computed again from the authors' released files, beside the project's stored numbers."""

from pathlib import Path

import pandas as pd

from companion.reporting import published
from companion.reporting.cells import iqm_cell
from companion.reporting.statistics import Aggregate, iqm_with_interval


def released_aggregates(folder: Path) -> pd.DataFrame:
    """IQMs of Fig. 5, 6 and 13 from a folder with the authors' files; files that are not there are left out.

    Columns: quantity, computed, low, high (95 %), interval ("over tasks", "over evaluation episodes", "over runs", or why there is
    none), stored (the same number in data/published) and agrees (within 0.5 %).
    Raises ReleasedFilesError where the folder has none of the files.
    """
    curves = [c for c in published.CURVES if c.figure == "13" and (folder / c.file).is_file()]
    lines = [*_many_tasks(folder, "mt30"), *_many_tasks(folder, "mt80")]
    for c in curves:
        lines += _robot(published.training_runs(folder / c.file), c.label, c.task, c.every)
    if not lines:
        raise published.ReleasedFilesError(f"{folder}: none of the authors' result files is here, e.g. mt80_results.csv or pwm_hopper.csv")
    table = pd.DataFrame(lines, columns=["quantity", "computed", "low", "high", "interval", "stored"])
    return table.assign(agrees=(table["computed"] / table["stored"] - 1).abs() <= 0.005)


def many_task_aggregates(scores: Path, planner: Path) -> list[tuple[str, str, Aggregate]]:
    """Method, what is resampled (tasks, or TD-MPC2's evaluation episodes in the place of runs), and the IQM of scores."""
    pwm = published.many_task_scores(scores).rename("score").reset_index().assign(train_seed=0)
    peer = published.planner_scores(planner).rename(columns={"episode": "train_seed"})
    found = (("PWM", pwm, "tasks"), ("TD-MPC2", peer, "tasks"), ("TD-MPC2", peer, "runs"))
    return [(method, over, iqm_with_interval(table, over=over)) for method, table, over in found]


def _many_tasks(folder: Path, task_set: str) -> list[tuple]:
    files = [folder / f"{task_set}_results.csv", folder / f"tdmpc2_{task_set}_scores.csv"]
    if not all(path.is_file() for path in files):
        return []
    name, interval = task_set.upper(), {"tasks": "over tasks", "runs": "over evaluation episodes of one model"}
    stored = published.published_table("multitask_aggregate").drop_duplicates("set").set_index("set")["iqm"]
    lines = [
        (f"{name}, {method}, IQM of scores", a.value, a.low, a.high, interval[over], stored[f"{name} {method}"])
        for method, over, a in many_task_aggregates(*files)
    ]
    (_, pwm, *_), (_, peer, *_) = lines[:2]
    ratio = stored[f"{name} PWM"] / stored[f"{name} TD-MPC2"]
    return [*lines, (f"{name}, PWM / TD-MPC2", pwm / peer, None, None, "none: one policy a task, one planner", ratio)]


def _robot(runs: pd.DataFrame, label: str, task: str, every: int) -> list[tuple]:
    together, middle = published.aligned(runs, every), published.iqm_curve(runs, every)
    stored = published.published_table("single_task").set_index(["algorithm", "task"]).loc[(label.lower(), task)]
    lines = []
    for point, row, column in (("at the peak", int(middle.to_numpy().argmax()), "peak_iqm"), ("at the end", -1, "final_iqm")):
        cell = iqm_cell(together.iloc[row])
        quantity, interval = f"{task}, {label}, IQM of returns {point}", f"over {runs.shape[1]} runs"
        lines.append((quantity, cell.value, cell.low, cell.high, interval, stored[column]))
    return lines
