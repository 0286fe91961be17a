"""Plain drawings that several of the paper's figures share: bars with intervals, curves of interquartile means, pairs of scores."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import trim_mean

from .released_results import aligned, iqm_curve

__all__ = ["METHODS", "bars", "bars_figure", "colours_of", "iqm_curves", "message_panel", "score_pairs"]


METHODS = {"PWM": "#0072B2", "TD-MPC2": "#E69F00", "SHAC": "#009E73", "PPO": "#CC79A7", "SAC": "#D55E00"}
"""The same colour for a method in every figure (Okabe-Ito)."""


def colours_of(labels: Iterable[str]) -> dict[str, object]:
    """Label -> colour: the methods' own, the others in order of appearance."""
    different = list(dict.fromkeys(labels))
    others = iter(sns.color_palette("colorblind", len(different)))
    return {label: METHODS[label] if label in METHODS else next(others) for label in different}


def bars(ax: Axes, table: pd.DataFrame, *, width: int = 14, fontsize: int = 8) -> None:
    """One bar a line with its interval where it has one.

    table: columns label (which gives the colour), value, low, high; tick (text below, else the label); hollow (drawn as an outline).
    """
    colours = colours_of(table["label"])
    for i, row in enumerate(table.itertuples()):
        colour = colours[row.label]
        ax.bar(i, row.value, width=0.65, facecolor="none" if getattr(row, "hollow", False) else colour, edgecolor=colour, lw=1.5)
        if np.isfinite([row.low, row.high]).all():
            # A percentile interval of few runs need not hold the aggregate itself.
            ends = [[max(0.0, row.value - row.low)], [max(0.0, row.high - row.value)]]
            ax.errorbar(i, row.value, ends, color="black", capsize=4, lw=1.2)
    names = table["tick"] if "tick" in table else table["label"]
    ax.set_xticks(range(len(table)), [textwrap.fill(str(name), width) for name in names], fontsize=fontsize)
    ax.grid(axis="y", alpha=0.3)


def bars_figure(panels: Mapping[str, pd.DataFrame], ylabel: str, title: str = "") -> Figure:
    """`bars` side by side, one panel a table; their titles are the keys."""
    widths = [len(table) + 0.6 for table in panels.values()]
    wide = min(13.0, max(4.5, 1.05 * sum(widths)))
    crowded = wide / sum(widths) < 0.8
    options = {"layout": "constrained", "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(1, len(panels), figsize=(wide, 3.2), width_ratios=widths, **options)
    for ax, (name, table) in zip(axes[0], panels.items(), strict=True):
        bars(ax, table, width=8 if crowded else 14, fontsize=6 if crowded else 8)
        ax.set_title(name, fontsize=9)
    axes[0, 0].set_ylabel(ylabel)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def iqm_curves(panels: Mapping[str, Mapping[str, pd.DataFrame]], *, draws: int = 300) -> Figure:
    """IQM over runs against x with a 95 % bootstrap interval over runs; one panel a key, one line a label.

    panels: title -> label -> training curves, one column a run, all of a panel with the same kind of index, whose name is the x label.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    colours = colours_of(labels)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.5 * len(panels) + 0.6, 3.3), layout="constrained", squeeze=False)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for label, runs in curves.items():
            middle = iqm_curve(runs)
            ax.plot(middle.index, middle, color=colours[label], label=label, lw=1.6)
            if runs.shape[1] > 1:
                rows = aligned(runs).to_numpy()
                picked = np.random.default_rng(0).integers(runs.shape[1], size=(draws, runs.shape[1]))
                low, high = np.percentile(trim_mean(rows[:, picked], 0.25, axis=2), [2.5, 97.5], axis=1)
                ax.fill_between(middle.index, low, high, color=colours[label], alpha=0.18, lw=0)
        ax.set(xlabel=next(iter(curves.values())).index.name, title=title)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.title.set_fontsize(9)
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("return while training, IQM over runs")
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)
    return figure


def score_pairs(table: pd.DataFrame, title: str) -> Figure:
    """Two or more methods on each task, one marker a method, sorted by the first.

    table: index task, one column a method (at most four), scores in [0, 1].
    """
    of_metaworld = table.index.str.startswith("mw-")
    suites = [(name, part) for name, part in (("dm_control", table[~of_metaworld]), ("MetaWorld", table[of_metaworld])) if len(part)]
    rows = max(len(part) for _, part in suites)
    figure, axes = plt.subplots(1, len(suites), figsize=(5.2 * len(suites), 0.19 * rows + 1.5), layout="constrained", squeeze=False)
    markers = dict(zip(table.columns, zip("oDs^", colours_of(table.columns).values(), strict=False), strict=False))
    for ax, (suite, part) in zip(axes[0], suites, strict=True):
        part = part.sort_values(table.columns[0], ascending=False)
        ax.hlines(range(len(part)), part.min(axis=1), part.max(axis=1), color="0.8", lw=1.5, zorder=0)
        for method, (marker, colour) in markers.items():
            ax.scatter(part[method], range(len(part)), marker=marker, color=colour, s=20, label=method)
        ax.set_yticks(range(len(part)), part.index, fontsize=7)
        ax.set(xlim=(-0.03, 1.03), ylim=(len(part) - 0.4, -0.6), xlabel="score", title=suite)
        ax.grid(axis="x", alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(markers), fontsize=8)
    return figure


def message_panel(title: str, message: str) -> Figure:
    """A panel that says why there is nothing to draw."""
    figure, ax = plt.subplots(figsize=(6.5, 1.6))
    ax.set_axis_off()
    ax.set_title(title, fontsize=10, loc="left")
    ax.text(0.0, 0.9, textwrap.fill(message, 88), va="top", fontsize=9, color="0.25", transform=ax.transAxes)
    return figure
