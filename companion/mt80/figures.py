"""Figures of Section 4.2: scores of every task (Fig. 15, 16) and their aggregates (Fig. 6), ours beside what they are judged by."""

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.reporting.colours import GREEN, METHODS, ORANGE, VERMILION, colours_of
from companion.reporting.drawings import panel_grid, whisker
from companion.reporting.statistics import Aggregate, iqm_with_interval
from companion.reporting.style import WIDTH

OURS, PLANNER = METHODS["PWM"], GREEN
PUBLISHED = {"PWM, published": ("D", METHODS["PWM"]), "TD-MPC2, published": ("s", METHODS["TD-MPC2"])}


def multitask_scores(table: pd.DataFrame, aggregates: Mapping[str, Aggregate]) -> Figure:
    """Per-task scores beside random behaviour, the data and planning (Fig. 15 in our numbers), and the aggregates (Fig. 6)."""
    first, runs = table.drop_duplicates("task").set_index("task"), table.groupby("task")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 0.55 * len(first) + 1.9), width_ratios=(3, 1.25), layout="constrained")
    y, dmc = pd.Series(range(len(first)), first.index), first["suite"] == "dm_control"
    low, high = (first[end].where(dmc) / 10 for end in ("data_p10", "data_p90"))
    left.hlines(y, low, high, color="0.85", lw=9, zorder=0, label="data, 10th to 90th percentile of episode scores")
    success = first["data_success"].where(~dmc) * 100
    left.scatter(success, y, marker="D", color="0.6", s=36, label="data, share of successful episodes")
    left.scatter(first["random_score"], y, marker="x", color="black", s=34, label="random actions")
    left.scatter(first["planning_score"], y - 0.3, marker="^", color=PLANNER, s=42, label="planning in the model")
    places = table["task"].map(y) + 0.14 * (runs.cumcount() - (runs["task"].transform("count") - 1) / 2)
    left.scatter(table["score"], places, color=OURS, edgecolor="white", s=46, zorder=3, label="PWM, one dot a seed")
    left.set_yticks(y, first.index)
    left.set(xlim=(-3, 103), ylim=(len(first) - 0.5, -0.5), xlabel="score")
    left.grid(axis="x", alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    _bars(right, aggregates)
    right.set_xticks(range(len(aggregates)), [name.replace(" ", "\n") for name in aggregates], fontsize=8)
    resampled = next(iter(aggregates.values())).resampled
    right.set(ylim=(0, 1.02), ylabel="normalised score", title="IQM, 95 % interval\n" + resampled.split(",")[0])
    right.title.set_fontsize(9)
    return figure


def _bars(ax: Axes, aggregates: Mapping[str, Aggregate]) -> None:
    for i, (name, a) in enumerate(aggregates.items()):
        ax.bar(i, a.value, color=OURS if name.startswith("PWM") else "0.6", width=0.6)
        whisker(ax, i, a.value, a.low, a.high)


def many_task_scores(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Fig. 15 and 16 for many tasks: ours, one dot a seed; random actions, planning in the model, the data, and the published scores.

    table: of `MultitaskExperiment.results`; published: of `published_scores` (full method, 48M model, published data; MetaWorld v2).
    """
    suites = table.groupby("suite", sort=False)
    rows = suites["task"].nunique().max()
    size = (4.75 * len(suites), 0.19 * rows + 1.5)
    figure, axes = plt.subplots(1, len(suites), figsize=size, layout="constrained", squeeze=False)
    for ax, (suite, group) in zip(axes[0], suites, strict=True):
        order = group.groupby("task")["score"].mean().sort_values(ascending=False).index
        places, once = pd.Series(range(len(order)), order), group.drop_duplicates("task").set_index("task").loc[order]
        if suite == "dm_control":
            low, high = once["data_p10"] / 10, once["data_p90"] / 10
            ax.hlines(places, low, high, color="0.86", lw=5, zorder=0, label="data: middle 80 % of returns")
        else:
            ax.scatter(100 * once["data_success"], places, marker="D", color="0.75", s=14, zorder=0, label="data: share of success")
        ax.scatter(once["random_score"], places, marker="x", color="black", s=14, lw=0.9, label="random actions")
        ax.scatter(once["planning_score"], places, marker="^", color=PLANNER, s=16, label="planning in our model")
        for name, (marker, colour) in PUBLISHED.items():
            values = published[name].reindex(order)
            ax.scatter(values, places, marker=marker, facecolor="none", edgecolor=colour, s=20, lw=1, label=name)
        apart = (group.groupby("task").cumcount() - (group["train_seed"].nunique() - 1) / 2) * 0.22  # equal scores lie one above the other
        at, label = group["task"].map(places) + apart, "PWM, ours, one dot a seed"
        ax.scatter(group["score"], at, color=OURS, s=15, edgecolor="white", lw=0.4, zorder=3, label=label)
        ax.set_yticks(places, order, fontsize=7)
        ax.set(
            xlim=(-3, 103),
            ylim=(len(order) - 0.4, -0.6),
            xlabel="score",
            title=f"{suite.replace('metaworld', 'MetaWorld')}, by our mean score",
        )
        ax.grid(axis="x", alpha=0.3)
    named = {label: mark for ax in axes[0] for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def anchored_returns(anchored: pd.DataFrame, without: pd.DataFrame) -> Figure:
    """Mean return of each task's policies over the 90th percentile of the data: extracted as in the paper, imitating, held near the data.

    anchored: one line a policy with columns task, train_seed, variation ("imitation alone", "anchored"), mean_return, data_p90; without:
    the same of the paper's extraction, without a variation; more tasks and seeds are left out.
    """
    names = {"paper": "PWM as in the paper", "imitation alone": "imitation of the data alone", "anchored": "PWM held near the data (ours)"}
    same = without[without["task"].isin(anchored["task"]) & without["train_seed"].isin(anchored["train_seed"])]
    every = pd.concat([anchored, same.assign(variation="paper")])
    share = (every["mean_return"] / every["data_p90"]).groupby([every["task"], every["variation"]]).mean()
    table = share.unstack().sort_values("anchored", ascending=False)[list(names)]
    half = -(-len(table) // 2)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.19 * half + 1.5), layout="constrained", sharex=True)
    for ax, part in zip(axes, (table[:half], table[half:]), strict=True):
        places = range(len(part))
        ax.hlines(places, part.min(axis=1), part.max(axis=1).clip(upper=1.55), color="0.85", lw=1.5, zorder=0)
        styles = ("o", "white", OURS), ("x", "0.3", None), ("o", OURS, OURS)
        for (name, label), (marker, face, edge) in zip(names.items(), styles, strict=True):
            ax.scatter(part[name].clip(upper=1.55), places, marker=marker, facecolor=face, edgecolor=edge, s=22, label=label)
        ax.axvline(0.7, color="0.5", lw=0.8, ls="--")
        ax.set_yticks(places, part.index, fontsize=7)
        ax.set(ylim=(half - 0.4, -0.6), xlim=(-0.03, 1.6), xlabel="return / 90th percentile of the data (more than 1.55: at the edge)")
        ax.grid(axis="x", alpha=0.3)
    counts = ", ".join(f"{label} {(table[name] >= 0.7).sum()}" for name, label in names.items())
    what = f"{len(table)} tasks of MetaWorld, one frozen world model, seeds: {anchored['train_seed'].nunique()}"
    figure.suptitle(f"{what}. At 0.7 (dashed) or more: {counts}", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


COMPARED = {
    "tdmpc2": "PWM and TD-MPC2 from the same episodes",
    "one_policy": "A policy a task, and one for all tasks",
    "horizon": "World models trained over 3 and over 16 steps",
}
"""Comparison -> the title of its figure."""


def compared_scores(table: pd.DataFrame, title: str) -> Figure:
    """Methods side by side on the same tasks (Fig. 6 right, 14 and 18 in our numbers): every score, and the IQM of each method; table:
    columns task, method, score in [0, 100], and train_seed where a method has several runs."""
    methods, tasks = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["task"]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 0.3 * len(tasks) + 1.9), width_ratios=(3, 1.3), layout="constrained")
    palette = list(colours_of(methods).values())
    sns.stripplot(table, x="score", y="task", hue="method", palette=palette, dodge=True, jitter=False, size=5, ax=left)
    left.get_legend().remove()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(methods), fontsize=8)
    left.set(xlim=(-3, 103), xlabel="score", ylabel="", title=title)
    left.grid(axis="x", alpha=0.3)
    for i, (method, colour) in enumerate(zip(methods, palette, strict=True)):
        part = table[table["method"] == method]
        part = part.assign(train_seed=part.groupby("task").cumcount(), score=part["score"] / 100)
        a = iqm_with_interval(part)
        whisker(right, i, a.value, a.low, a.high)
        right.plot(i, a.value, "D", color=colour, ms=8)
    runs = [table[table["method"] == m].groupby("task").size().max() for m in methods]
    labels = [f"{fill(m, 12)}\n({n} run{'s' if n > 1 else ''})" for m, n in zip(methods, runs, strict=True)]
    right.set_xticks(range(len(methods)), labels, fontsize=7)
    right.set(xlim=(-0.6, len(methods) - 0.4), ylim=(-0.02, 1.02), ylabel="IQM of normalised scores of the tasks")
    right.set_title("95 % interval over runs\nwhere there are several")
    right.grid(axis="y", alpha=0.3)
    right.title.set_fontsize(9)
    return figure


def aggregate_bars(ours: Mapping[str, Aggregate], published: pd.DataFrame) -> Figure:
    """Fig. 6 left: interquartile means, ours (interval over training runs) and published (over tasks)."""
    figure, ax = plt.subplots(figsize=(1.3 * (len(ours) + len(published)) + 1.2, 3.1), layout="constrained")
    _bars(ax, ours)
    for i, row in enumerate(published.itertuples(), len(ours)):
        ax.bar(i, row.iqm, facecolor="none", edgecolor=PUBLISHED.get(row.method, ("", "0.4"))[1], lw=1.5, width=0.6)
        whisker(ax, i, row.iqm, row.lo, row.hi)
    for i, value in enumerate([*(a.value for a in ours.values()), *published["iqm"]]):
        ax.text(i + 0.06, value + 0.01, f"{value:.2f}", fontsize=7)
    names = [f"{name},\nours" for name in ours] + [method.replace(", ", ",\n") for method in published["method"]]
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set(ylim=(0, 1.02), ylabel="IQM of normalised scores")
    ax.set_title("filled: ours, a small model on data of our own; hollow: published, 48M weights", fontsize=8)
    return figure


def fine_tuning_curves(curves: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Score against episodes of the task's own, a line a seed; at 0 the policy it starts with.

    curves: of `FineTuning.table`, of one or both starts; results: of `MultitaskExperiment.results`, for random actions and the 90th
    percentile of the returns in the data (dm_control; a success in MetaWorld has none).
    """
    tasks, first = list(dict.fromkeys(curves["task"])), results.drop_duplicates("task").set_index("task")
    across = min(4, len(tasks))
    figure, axes = panel_grid(len(tasks), across, (max(3.6, 2.6 * across), 2.5), below=0.7, sharey=True)
    for ax, name in zip(axes, tasks, strict=True):
        for (start, _), line in curves[curves["task"] == name].groupby(["start", "train_seed"]):
            ax.plot(line["own_episodes"], line["score"], label=_STARTS[start][0], color=_STARTS[start][1], lw=1.5, marker="o", ms=3)
        ax.axhline(first.random_score[name], label="random actions", color="black", ls="--", lw=1)
        if first.suite[name] == "dm_control":
            ax.axhline(first.data_p90[name] / 10, label="90th percentile of the data", color="0.5", ls=":", lw=1.5)
        ax.set(title=name, ylim=(-3, 103), xlabel="episodes of its own")
    for ax in axes[::across]:
        ax.set_ylabel("score")
    named = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=2, fontsize=8)
    return figure


_STARTS = {"anew": ("policy and critics start anew", OURS), "extracted": ("start as extracted", VERMILION)}


def online_curves(table: pd.DataFrame) -> Figure:
    """PWM online on single dm_control tasks: return of the deterministic policy against episodes; thin lines are seeds, thick medians."""
    tasks, models = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["model"]))
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.3 * len(tasks), 3.1), layout="constrained", squeeze=False, sharey=True)
    for ax, task in zip(axes[0], tasks, strict=True):
        for model, colour in zip(models, colours_of(models).values(), strict=True):
            of = table[(table["task"] == task) & (table["model"] == model)]
            curves = of.pivot(index="episodes", columns="train_seed", values="mean_return")
            ax.plot(curves, color=colour, lw=0.8, alpha=0.5)
            ax.plot(curves.median(axis=1), color=colour, lw=2.2, label=f"{model} world model")
        ax.set(title=task, xlabel="episodes", ylabel="return" if ax is axes[0, 0] else "")
        ax.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    return figure


def offline_cartpole_scores(table: pd.DataFrame, data: pd.DataFrame) -> Figure:
    """Real returns of policies extracted offline, one dot a seed, beside the episodes of the replay that they come from."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharey=True, width_ratios=(1.3, 1), layout="constrained")
    for behaviour, group in data.groupby("behaviour", sort=False):
        left.scatter(group["row"] + 1, group["return"], s=14, label=behaviour.replace("_", " "))
    left.set(xlabel="episode of the replay", ylabel="return of 1000", title="the data: one agent, learning", ylim=(0, 1000))
    left.legend(fontsize=8, loc="lower right")
    settings = list(dict.fromkeys(table["setting"]))
    for i, setting in enumerate(settings):
        part = table[table["setting"] == setting]
        right.scatter([i - 0.1] * len(part), part["mean_return"], color=OURS, s=30, label="last" if i == 0 else None)
        right.scatter([i + 0.1] * len(part), 10 * part["best_score"], color=ORANGE, s=30, label="best" if i == 0 else None)
    right.set_xticks(range(len(settings)), [s.replace(", ", "\n") for s in settings])
    right.set(title="policies, one dot a seed", xlim=(-0.5, len(settings) - 0.5))
    right.legend(fontsize=8, loc="lower right")
    return figure
