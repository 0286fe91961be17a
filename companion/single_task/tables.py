"""Single-task runs as the tables that a reader compares: beside the published numbers, and at equal time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from companion.reporting.cells import iqm

NAMES = {
    "shac": "SHAC",
    "pwm": "PWM, SHAC replay",
    "pwm_scratch": "PWM, from scratch",
    "pwm_state_space": "PWM, from scratch, state-space model",
    "pwm_offline": "PWM, frozen models",
    "ppo": "PPO",
    "sac": "SAC",
    "tdmpc2": "TD-MPC2",
}
"""Algorithm -> what figures and tables call it."""

OWN_BODIES = ("anymal", "snu_like")
"""Robots whose bodies are ours: published returns are no yardstick for theirs."""


def beside_published(results: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Tables 3 and 4: one line a task and algorithm, ours (end and peak of training) beside the printed and the recomputed numbers.

    A run that ended without a return counts as 0, as in the figures.
    Columns that end in _t3 are in units of the published PPO, as in Table 3; the others returns, as in Table 4.
    """
    lines = []
    for (task, algorithm), runs in results.groupby(["task", "algorithm"], sort=False):
        paper = published[(published["task"] == task) & (published["algorithm"] == algorithm.partition("_")[0])].iloc[0]
        last, best = runs["last"].fillna(0.0), runs["best"].fillna(0.0)
        ours = {"ours_end": iqm(last), "ours_std": last.std(), "ours_peak": iqm(best), "seeds": len(runs)}
        ours["diverged"] = int((runs["status"] != "finished").sum())
        names = {"printed": "paper_t4_iqm", "printed_std": "paper_t4_std", "end": "final_iqm", "end_std": "final_std", "peak": "peak_iqm"}
        theirs, unit = {ours_name: paper[name] for ours_name, name in names.items()}, paper["ppo_norm"]
        normalised = {"ours_end_t3": iqm(last) / unit, "printed_t3": paper["paper_t3_iqm"], "peak_t3": paper["peak_iqm"] / unit}
        lines.append({"task": task, "algorithm": NAMES[algorithm], **ours, **theirs, **normalised})
    return pd.DataFrame(lines)


def equal_time(curves: pd.DataFrame, minutes: Sequence[float] = (0.5, 1, 2, 4, 8)) -> pd.DataFrame:
    """IQM over seeds of the last evaluation within so many CPU-minutes of training, one line a task and algorithm.

    curves: task, algorithm, train_seed, cpu_s, mean_return. Empty where a seed has no evaluation by then, and once every seed has ended
    earlier (what a longer run would have reached is not known). A given replay's time counts.
    """
    lines = []
    for (task, algorithm), part in curves.groupby(["task", "algorithm"], sort=False):
        line: dict[str, object] = {"task": task, "algorithm": NAMES[algorithm]}
        longest = part["cpu_s"].max() / 60
        for before, budget in pairwise((0.0, *minutes)):
            seen = part[part["cpu_s"] <= 60 * budget].sort_values("cpu_s").groupby("train_seed")["mean_return"].last()
            complete = len(seen) == part["train_seed"].nunique() and before < longest
            line[f"{budget:g} min"] = iqm(seen) if complete else np.nan
        lines.append({**line, "ended after, min": longest})
    return pd.DataFrame(lines)
