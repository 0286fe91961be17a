"""Figures of the ablations (Fig. 7, 8, 17 and 19)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion.reporting.colours import colours_of
from companion.single_task.tables import iqm

__all__ = ["ablation_curves", "extraction_curves"]


def ablation_curves(results: pd.DataFrame, curves: pd.DataFrame, question: str) -> Figure:
    """Return against environment steps by variation, or against evaluations where no run takes a step of its own; the last return of every
    seed; and, where a world model is learned, its error in rewards and the cosine of its gradient to the simulator's, at the end."""
    order = list(dict.fromkeys(results["variation"]))
    palette = colours_of(order)
    learned = curves["gradient_cosine"].notna().any()
    figure, axes = plt.subplots(
        1,
        4 if learned else 2,
        figsize=(9.5 if learned else 7.5, 3.2),
        layout="constrained",
        width_ratios=[2, 1, 1, 1][: 4 if learned else 2],
    )
    runs = curves.groupby(["variation", "train_seed"], sort=False)
    acting = runs["env_steps"].nunique().gt(1).any()
    curves = curves.assign(evaluation=runs.cumcount() + 1)
    x = "env_steps" if acting else "evaluation"
    sns.lineplot(curves, x=x, y="mean_return", hue="variation", palette=palette, estimator=iqm, errorbar=("ci", 95), seed=0, ax=axes[0])
    axes[0].set(xlabel="environment steps" if acting else "evaluation, at even intervals", ylabel="return")
    axes[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if acting:
        axes[0].ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    figure.suptitle(question, fontsize=10)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(order), fontsize=8)
    axes[0].get_legend().remove()
    ends = curves.groupby(["variation", "train_seed"], sort=False).last().reset_index()
    panels = [
        ("last", "last return", results),
        ("reward_rmse", "reward error, 16 steps", ends),
        ("gradient_cosine", "cosine to the simulator", ends),
    ]
    for ax, (column, label, table) in zip(axes[1:], panels, strict=False):
        sns.stripplot(
            table, x="variation", y=column, hue="variation", order=order, palette=palette, jitter=False, size=6, ax=ax, legend=False
        )
        ax.set_xticks(range(len(order)), [str(i + 1) for i in range(len(order))])
        ax.set(xlabel="variation, as below", ylabel=label)
    for ax in axes:
        ax.grid(axis="y", alpha=0.3)
    return figure


def extraction_curves(table: pd.DataFrame) -> Figure:
    """Fig. 8b: return of policies that do not plan against updates of the world model; a panel a task, a dot a seed, lines are medians."""
    tasks, methods = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["method"]))
    palette = colours_of(methods)
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(min(9.5, 3.6 * len(tasks) + 1), 3.2), layout="constrained", squeeze=False, sharey=True
    )
    for ax, task in zip(axes[0], tasks, strict=True):
        part = table[table["task"] == task]
        for method in methods:
            of = part[part["method"] == method]
            ax.plot(of["updates"], of["mean_return"], "o", color=palette[method], ms=4, alpha=0.6)
            ax.plot(of.groupby("updates")["mean_return"].median(), color=palette[method], label=method)
        ax.set(xscale="log", xlabel="updates of the world model", title=task, ylabel="return" if ax is axes[0, 0] else "")
        ax.title.set_fontsize(9)
        ax.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    return figure
