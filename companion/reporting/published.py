"""The authors' results, recomputed from their released files (data/published)."""

from __future__ import annotations

import json
from typing import Any, Literal

import pandas as pd

from companion.running.paths import PROJECT

__all__ = ["printed_settings", "published_aggregates", "published_scores", "published_table"]

PUBLISHED = PROJECT / "data" / "published"


def published_table(name: str) -> pd.DataFrame:
    """A table of data/published."""
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
