"""Figures of the ablations (Fig. 7, 8, 17 and 19)."""

from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion.reporting.cells import iqm
from companion.reporting.colours import colours_of


def ablation_curves(results: pd.DataFrame, curves: pd.DataFrame, question: str) -> Figure:
    """Draw a question's runs, all of them: every seed's return against environment steps (against evaluations where no run takes a step
    of its own) and the IQM of each variation; every seed's last return; and, where a world model is learned, its error in rewards and the
    cosine of its gradient to the simulator's, at the end."""
    order = list(dict.fromkeys(results["variation"]))
    palette, learned = colours_of(order), curves["gradient_cosine"].notna().any()
    runs = curves.groupby(["variation", "train_seed"], sort=False)
    acting = runs["env_steps"].nunique().gt(1).any()
    curves, x = curves.assign(evaluation=runs.cumcount() + 1, millions=curves["env_steps"] / 1e6), "millions" if acting else "evaluation"
    ends = curves.groupby(["variation", "train_seed"], sort=False).last().reset_index()
    panels = [("last", "last return", results)]
    if learned:
        panels += [("reward_rmse", "RMSE of 16 rewards", ends), ("gradient_cosine", "gradient's cosine", ends)]
    size = (9.5 if learned else 7.5, max(3.2, 1.3 + 0.42 * len(order)))
    figure, axes = plt.subplots(1, 1 + len(panels), figsize=size, layout="constrained", width_ratios=[2] + [1] * len(panels))
    figure.get_layout_engine().set(wspace=0.06)
    of = {"x": x, "y": "mean_return", "hue": "variation", "palette": palette, "ax": axes[0], "legend": False}
    sns.lineplot(curves, units="train_seed", estimator=None, lw=0.7, alpha=0.5, **of)
    sns.lineplot(curves, estimator=iqm, errorbar=None, lw=2, **of)
    axes[0].set(xlabel="environment steps, millions" if acting else "evaluation, at even intervals", ylabel="return: IQM, thin: every seed")
    axes[0].xaxis.set_major_locator(MaxNLocator(5, integer=not acting))
    names = [fill(name, 20) for name in order]
    for ax, (column, label, table) in zip(axes[1:], panels, strict=True):
        places = table["variation"].map(order.index)
        ax.scatter(table[column], places, c=table["variation"].map(palette), s=36, alpha=0.8, lw=0, clip_on=False, zorder=3)
        for place in set(range(len(order))) - set(places[table[column].notna()]):
            ax.text(0, place, " no world model", va="center", fontsize=7, color="0.4")
        ax.set_yticks(range(len(order)), names if ax is axes[1] else [""] * len(order), fontsize=8)
        ax.set(xlabel=label, ylim=(len(order) - 0.5, -0.5))
        low, high = min(0.0, table[column].min()), max(0.0, table[column].max())
        ax.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.axvline(0, color="0.3", lw=0.8)
    for ax in axes:
        ax.grid(alpha=0.3)
    for label, name in zip(axes[1].get_yticklabels(), order, strict=True):
        label.set_color(palette[name])
    figure.suptitle(f"{question}\n{_what(results)}", fontsize=10)
    return figure


def _what(results: pd.DataFrame) -> str:
    """Robot, seeds and budget of the runs, as a title says them."""
    robots = " and ".join(name.replace("_", " ").capitalize() for name in results["task"].unique())
    seeds, updates = results.groupby("variation")["train_seed"].nunique(), results["updates"].dropna()
    times = f", {_from_to(updates.astype(int))} updates of the policy" if len(updates) else ""
    return f"{robots}, {_from_to(seeds)} seed{'' if seeds.max() == 1 else 's'}{times}"


def _from_to(numbers: pd.Series) -> str:
    return f"{numbers.min()}" if numbers.nunique() == 1 else f"{numbers.min()} to {numbers.max()}"


def extraction_curves(table: pd.DataFrame) -> Figure:
    """Fig. 8b: return of policies that do not plan against updates of the world model; a panel a task, a dot a seed, lines are medians."""
    tasks, methods = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["method"]))
    palette = colours_of(methods)
    size = (min(9.5, 3.6 * len(tasks) + 1), 3.2)
    figure, axes = plt.subplots(1, len(tasks), figsize=size, layout="constrained", squeeze=False, sharey=True)
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
