"""Figures of the double pendulum (Fig. 3 and 11)."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from companion.double_pendulum.sentences import RANGES
from companion.double_pendulum.sweep import FEEDBACK, REWARD_UNITS, SAME_ACTIONS
from companion.reporting.colours import METHODS, PINK
from companion.reporting.style import WIDTH


def gradient_curves(table: pd.DataFrame) -> Figure:
    """Variance and ESNR of the policy gradient against the horizon, one column a setting; bands are intervals of the true values."""
    table = table[table["setting"] != REWARD_UNITS]
    settings = list(dict.fromkeys(table["setting"]))
    figure, axes = plt.subplots(2, len(settings), figsize=(WIDTH / 3 * len(settings), 5.6), sharex=True, sharey="row", layout="constrained")
    names = ("mean_variance", "variance, mean over parameters"), ("esnr", "ESNR (Eq. 5)")
    floors = {name: 0.3 * table[name].min() for name, _ in names}  # intervals that reach 0 end at the axis
    ceilings = {name: 1.5 * table[f"{name}_high"].max() for name, _ in names}
    for column, setting in enumerate(settings):
        for row, (name, label) in enumerate(names):
            ax = axes[row, column]
            for world, curve in table[table["setting"] == setting].groupby("world"):
                colour, style = METHODS.get(world, "0.5"), ":" if world.endswith("zeroth order") else "-"
                ax.plot(curve["horizon"], curve[name], color=colour, linestyle=style, label=world)
                low, high = (curve[f"{name}_{end}"].clip(lower=floors[name]) for end in ("low", "high"))
                ax.fill_between(curve["horizon"], low, high, color=colour, alpha=0.18, linewidth=0)
            ax.set_yscale("log")
            ax.set_ylim(floors[name], ceilings[name])
            ax.set_ylabel(label if column == 0 else "")
        axes[0, column].set_title(setting.replace(", ", ",\n"), fontsize=9)
        if setting == FEEDBACK:
            axes[0, column].text(
                0.97, 0.05, "not comparable:\nother parameters", ha="right", transform=axes[0, column].transAxes, fontsize=8
            )
        axes[1, column].set_xlabel("horizon H [steps]")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes[0]), key=lambda pair: len(pair[1]))
    title = "bands: bootstrap intervals, nominally 95 %; what they reach is in data/results/benchmarks/esnr_coverage.csv"
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), title=title, title_fontsize=8)
    return figure


def gradient_switches(table: pd.DataFrame) -> Figure:
    """The units of the reward change the variance and no ESNR; the formula changes the ESNR. Trained policy, same actions."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 3.6), layout="constrained")
    same = table[table["setting"] == SAME_ACTIONS].set_index("world")
    units = table[table["setting"] == REWARD_UNITS]
    for ax, column, label in ((left, "mean_variance", "variance, mean over parameters"), (middle, "esnr", "ESNR (Eq. 5)")):
        ax.plot(same.loc["true", "horizon"], same.loc["true", column], color="black", label="the environment's")
        ax.plot(units["horizon"], units[column], color=PINK, ls="--", label="reward / 21554 + 1, as released")
        ax.set(yscale="log", xlabel="horizon H [steps]", ylabel=label)
        ax.set_title("true dynamics, units of the reward", fontsize=9)
    left.legend(fontsize=8)
    formulas = {"esnr": "-", "esnr_unbiased": "--", "esnr_released": "-.", "esnr_released_unbiased": ":"}
    names = ("Eq. 5", "Eq. 5, unbiased", "mean of ratios, as released", "mean of ratios, unbiased")
    for world in ("true", "model, H = 16"):
        for (column, style), name in zip(formulas.items(), names, strict=True):
            values = same.loc[world, column].where(same.loc[world, column] > 0)  # an unbiased estimate of about 0 may fall below it
            right.plot(same.loc[world, "horizon"], values, color=METHODS[world], ls=style, lw=1.2)
            if world == "true":
                right.plot([], [], color="0.4", ls=style, label=name)
    right.set(yscale="log", xlabel="horizon H [steps]", ylabel="ESNR")
    right.set_title("formula (black: true, blue: H = 16)", fontsize=9)
    right.legend(fontsize=7)
    return figure


def gradient_fidelity_curves(table: pd.DataFrame, *, at: int = 16) -> Figure:
    """Cosine (top) and ratio of norms (bottom) of a model's and the simulator's gradient: against the horizon, against training time and
    by kind of start state, the latter two at horizon `at`. Solid: mean over samples; dashed: gradient of the batch's mean."""
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 5.4), sharex="col", sharey="row", layout="constrained")
    worlds, final, visited = list(dict.fromkeys(table["world"])), table["updates"].max(), "visited by the policy"
    at = table["horizon"][table["horizon"] <= at].max()
    kinds = list(dict.fromkeys(table["kind"]))
    rows = (("cosine", "batch_cosine", "cosine"), ("norm_ratio", "batch_norm_ratio", "|model| / |simulator|"))
    for (column, batch_column, label), row in zip(rows, axes, strict=True):
        for world in worlds:
            colour, part = METHODS[world], table[table["world"] == world]
            trained = part[part["updates"] == final]
            along = trained[trained["kind"] == visited]
            time = part[(part["kind"] == visited) & (part["horizon"] == at)]
            by_kind = trained[trained["horizon"] == at].set_index("kind").loc[kinds]
            if column == "cosine":
                row[0].fill_between(along["horizon"], along["cosine_low"], along["cosine_high"], color=colour, alpha=0.15, lw=0)
            for name, style in ((column, "-"), (batch_column, "--")):
                row[0].plot(along["horizon"], along[name], color=colour, ls=style)
                row[1].plot(time["updates"], time[name], color=colour, ls=style, marker="o", ms=4)
            y = np.arange(len(kinds)) + 0.12 * (1 if world == worlds[0] else -1)
            row[2].scatter(y, by_kind[column], color=colour, s=34)
            row[2].scatter(y, by_kind[batch_column], color=colour, s=34, marker="x")
        row[0].set_ylabel(label)
    for ax in axes[0]:
        ax.axhline(0, color="0.6", lw=0.8)
    for ax in axes[1]:
        ax.axhline(1, color="0.6", lw=0.8)
    axes[1, 0].set(yscale="log", xlabel="horizon [steps]")
    low, high = axes[1, 0].get_ylim()
    axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,), numticks=12))
    axes[1, 0].minorticks_off()
    axes[1, 0].yaxis.set_major_formatter("{x:g}")
    axes[1, 1].set(xlabel="updates of the model", xscale="log")
    axes[1, 1].set_xticks(sorted(table["updates"].unique()), [str(n) for n in sorted(table["updates"].unique())])
    axes[1, 1].minorticks_off()
    axes[1, 2].set_xticks(range(len(kinds)), [textwrap.fill(kind, 10) for kind in kinds], fontsize=7)
    axes[0, 0].set_title("states visited by the policy", fontsize=9)
    axes[0, 1].set_title(f"training time, horizon {at}", fontsize=9)
    axes[0, 2].set_title(f"kind of start state, horizon {at}", fontsize=9)
    for world in worlds:
        axes[0, 0].plot([], [], color=METHODS[world], label=world)
    axes[0, 0].plot([], [], color="0.4", label="mean over samples (band: middle half; dot)")
    axes[0, 0].plot([], [], color="0.4", ls="--", label="mean gradient of the batch (cross)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def bias_and_variance(table: pd.DataFrame) -> Figure:
    """Variance (top) and ESNR (bottom) of the policy gradients of models, over the true ones, against the cosine of the mean gradients; a
    column a range of horizons, a mark a model. Dashed: the cosine that two halves of the true samples have.

    table: of `bias_study`. Means over the horizons of a range, geometric ones of the ratios.
    """
    figure, axes = plt.subplots(2, len(RANGES), figsize=(WIDTH, 5.2), sharex=True, sharey="row", layout="constrained")
    true = table[table["world"] == "true"].set_index("horizon")
    models = table[table["world"] != "true"]
    weights, updates = (sorted(models[name].unique()) for name in ("weights", "updates"))
    size = dict(zip(weights, (14, 34, 70), strict=False))
    light = dict(zip(updates, (0.15, 0.5, 1.0), strict=False))
    for (low, high), column in zip(RANGES, axes.T, strict=True):
        part = models[models["horizon"].between(low, high)]
        for ax, name, label in zip(column, ("mean_variance", "esnr"), ("variance / true variance", "ESNR / true ESNR"), strict=True):
            ratio = np.log(part[name] / part["horizon"].map(true[name]))
            keys = [part[key] for key in ("world", "weights", "updates")]
            marks = pd.DataFrame({"x": part["mean_cosine"].groupby(keys).mean(), "y": np.exp(ratio.groupby(keys).mean())}).reset_index()
            for mark in marks.itertuples():
                colour = METHODS[mark.world]
                face = to_rgba(colour, light[mark.updates])
                ax.scatter(mark.x, mark.y, s=size[mark.weights], facecolor=face, edgecolor=colour, lw=0.9)
            ax.axvline(true["mean_cosine"].loc[low:high].mean(), color="0.3", lw=0.9, ls="--")
            ax.axhline(1, color="0.6", lw=0.8)
            ax.set(yscale="log", ylabel=label if low == RANGES[0][0] else "")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.grid(alpha=0.3)
        column[0].set_title(f"horizons {low} to {high}", fontsize=9)
        column[1].set_xlabel("cosine of the means")
    handles = [Line2D([], [], marker="o", lw=0, color=METHODS[world], label=world) for world in sorted(models["world"].unique(), key=len)]
    handles += [Line2D([], [], marker="o", lw=0, color="0.3", ms=size[w] ** 0.5, label=f"{w / 1e6:.2g}M weights") for w in weights]
    handles += [Line2D([], [], marker="o", lw=0, mec="0.3", mfc=to_rgba("0.3", light[u]), label=f"{u} updates") for u in updates]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def disturbance_growth(growth: pd.DataFrame) -> Figure:
    """How a small disturbance of the start grows under the same actions: medians, bands hold the middle half of the samples."""
    figure, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
    for world, curve in growth.groupby("world"):
        colour = METHODS.get(world, "0.5")
        ax.plot(curve["horizon"], curve["growth"], color=colour, label=world)
        ax.fill_between(curve["horizon"], curve["growth_low"], curve["growth_high"], color=colour, alpha=0.18, linewidth=0)
    ax.axhline(1.0, color="0.6", linewidth=0.8)
    ax.set(yscale="log", xlabel="steps", ylabel="|difference| / |difference at the start|")
    ax.legend()
    return figure
