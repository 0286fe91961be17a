"""Plain drawings that several of the paper's figures share: bars with intervals, curves of interquartile means, pairs of scores."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .cells import iqm
from .colours import colours_of
from .published import aligned, iqm_curve


def bars(ax: Axes, table: pd.DataFrame, *, width: int = 14, fontsize: int = 8) -> None:
    """One bar a line with its interval where it has one; lines with the same tick stand side by side.

    table: columns label (which gives the colour), value, low, high; tick (text below, else the label); hollow (drawn as an outline).
    """
    colours = colours_of(table["label"])
    table = table.assign(tick=table["tick"] if "tick" in table else table["label"])
    ticks = list(dict.fromkeys(table["tick"]))
    at_tick = table.groupby("tick").cumcount()
    together = at_tick.max() + 1
    places = table["tick"].map(ticks.index) + (at_tick - (together - 1) / 2) * 0.7 / together
    for place, row in zip(places, table.itertuples(), strict=True):
        colour, hollow = colours[row.label], getattr(row, "hollow", False)
        ax.bar(place, row.value, width=0.64 / together, facecolor="none" if hollow else colour, edgecolor=colour, lw=1.5)
        whisker(ax, place, row.value, row.low, row.high, capsize=3)
    slanted = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if len(ticks) > 6 else {}
    names = [textwrap.fill(str(name), 50 if slanted else width) for name in ticks]
    ax.set_xticks(range(len(ticks)), names, fontsize=fontsize, **slanted)
    ax.set_xlim(-0.55, len(ticks) - 0.45)
    ax.grid(axis="y", alpha=0.3)


def whisker(ax: Axes, place: float, value: float, low: float | None, high: float | None, *, capsize: int = 4, lw: float = 1.2) -> None:
    """Draw the interval of a bar, where it has one."""
    if low is not None and high is not None and np.isfinite([low, high]).all():
        # A percentile interval of few runs need not hold the aggregate itself.
        ax.errorbar(place, value, [[max(0.0, value - low)], [max(0.0, high - value)]], color="black", capsize=capsize, lw=lw)


ACROSS = 3
"""Panels in a row: with more, the text is too small at notebook width."""


def bars_figure(panels: Mapping[str, pd.DataFrame], ylabel: str, title: str = "") -> Figure:
    """`bars`, one panel a table; their titles are the keys."""
    ticks = [len(table["tick"].unique() if "tick" in table else table) for table in panels.values()]
    most = max(ticks)
    across = min(len(panels), ACROSS if most > 2 else 4)
    width = min(9.5, max(4.5, across * (1.0 * most + 0.6)))
    ratios = {"width_ratios": [n + 0.6 for n in ticks]} if len(panels) <= across else {}
    figure, axes = panel_grid(len(panels), across, (width, 2.9), sharey=True, **ratios)
    crowded = width / (across * (most + 0.6)) < 0.8
    for ax, (name, table) in zip(axes, panels.items(), strict=True):
        bars(ax, table, width=8 if crowded else 14, fontsize=7 if crowded else 8)
        ax.set_title(name, fontsize=9)
    for ax in axes[::across]:
        ax.set_ylabel(ylabel)
    if title:
        figure.suptitle(textwrap.fill(title, int(13 * width)), fontsize=10)
    return figure


def panel_grid(panels: int, across: int, size: tuple[float, float], *, below: float = 0.3, **options: object) -> tuple[Figure, list[Axes]]:
    """So many axes in rows of `across`; places left over stay empty. size: width of all, height of a row; below: for the legend."""
    rows = -(-panels // across)
    figure, axes = plt.subplots(rows, across, figsize=(size[0], size[1] * rows + below), layout="constrained", squeeze=False, **options)
    for ax in axes.flat[panels:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:panels])


def iqm_curves(panels: Mapping[str, Mapping[str, pd.DataFrame]], title: str = "", *, draws: int = 300) -> Figure:
    """IQM over runs against x with a 95 % bootstrap interval over runs; one panel a key, one line a label.

    panels: title -> label -> training curves, one column a run, all of a panel with the same kind of index, whose name is the x label.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    colours, across = colours_of(labels), min(len(panels), ACROSS)
    figure, axes = panel_grid(len(panels), across, (max(4.5, 3.2 * across), 3.0))
    for ax, (name, curves) in zip(axes, panels.items(), strict=True):
        for label, runs in curves.items():
            middle = iqm_curve(runs)
            ax.plot(middle.index, middle, color=colours[label], label=label, lw=1.6)
            if runs.shape[1] > 1:
                rows = aligned(runs).to_numpy()
                picked = np.random.default_rng(0).integers(runs.shape[1], size=(draws, runs.shape[1]))
                low, high = np.percentile(iqm(rows[:, picked], axis=2), [2.5, 97.5], axis=1)
                ax.fill_between(middle.index, low, high, color=colours[label], alpha=0.18, lw=0)
        ax.set_xlabel(next(iter(curves.values())).index.name)
        ax.set_title(name, fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(alpha=0.3)
    for ax in axes[::across]:
        ax.set_ylabel("training return, IQM")
    if title:
        figure.suptitle(textwrap.fill(title, 40 * across), fontsize=9)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)
    return figure


def score_pairs(table: pd.DataFrame, title: str) -> Figure:
    """Two or more methods on each task, one marker a method, sorted by the first.

    table: index task, one column a method (at most four), scores in [0, 1].
    """
    of_metaworld = table.index.str.startswith("mw-")
    suites = [(name, part) for name, part in (("dm_control", table[~of_metaworld]), ("MetaWorld", table[of_metaworld])) if len(part)]
    rows = max(len(part) for _, part in suites)
    figure, axes = plt.subplots(1, len(suites), figsize=(4.75 * len(suites), 0.19 * rows + 1.5), layout="constrained", squeeze=False)
    markers = dict(zip(table.columns, zip("oDs^", colours_of(table.columns).values(), strict=False), strict=False))
    for ax, (suite, part) in zip(axes[0], suites, strict=True):
        part = part.sort_values(table.columns[0], ascending=False)
        ax.hlines(range(len(part)), part.min(axis=1), part.max(axis=1), color="0.8", lw=1.5, zorder=0)
        for method, (marker, colour) in markers.items():  # only the first is filled, so that equal scores show both
            face, size = (colour, 16) if method == table.columns[0] else ("none", 34)
            ax.scatter(part[method], range(len(part)), marker=marker, facecolor=face, edgecolor=colour, s=size, lw=1.1, label=method)
        ax.set_yticks(range(len(part)), part.index, fontsize=7)
        ax.set(xlim=(-0.03, 1.03), ylim=(len(part) - 0.4, -0.6), xlabel="score", title=suite)
        ax.grid(axis="x", alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(markers), fontsize=8)
    return figure


def message_panel(title: str, message: str) -> Figure:
    """A panel that says why there is nothing to draw."""
    lines = textwrap.wrap(message, 92)
    figure, ax = plt.subplots(figsize=(7.5, 0.4 + 0.18 * len(lines)))
    ax.set_axis_off()
    ax.set_position((0.0, 0.0, 1.0, 1.0))
    ax.text(0.01, 0.98, title, va="top", fontsize=10, transform=ax.transAxes)
    ax.text(0.01, 0.98 - 0.26 / figure.get_figheight(), "\n".join(lines), va="top", fontsize=9, color="0.25", transform=ax.transAxes)
    return figure
