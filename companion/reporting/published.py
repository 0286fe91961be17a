"""The authors' results, recomputed from their released files (data/published)."""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal

import pandas as pd

from companion.running.paths import DATA
from companion.running.runs import plain

PUBLISHED = DATA / "published"


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
