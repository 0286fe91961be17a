"""Figures of the ball and the wall (Fig. 2, 9 and 10)."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from companion.reporting.colours import GREEN, METHODS, YELLOW
from companion.reporting.style import WIDTH
from pwmlib.sim.closed_form.ball_wall import BallWall

NAMES = {"relu": "ReLU", "layernorm_mish": "LayerNorm + Mish", "simnorm": "SimNorm", "true J": "true J"}


def landscapes(models: pd.DataFrame, ends: pd.DataFrame) -> Figure:
    """Fig. 2, 9, 10: the true J and each surrogate (one thin line a seed), and where each descent comes to rest on the true J.

    models, ends: of `ball_wall.Example`.
    """
    kinds = [kind for kind in dict.fromkeys(models["surrogate"]) if kind != "true J"]
    descents = list(dict.fromkeys(ends["descent"]))
    size = {"figsize": (WIDTH / 3 * len(kinds), 2.75 * len(descents)), "sharex": True, "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(len(descents), len(kinds), **size)
    truth = models[models["surrogate"] == "true J"]
    best = truth.loc[truth["value"].idxmin()]
    for row, descent in zip(axes, descents, strict=True):
        for ax, kind in zip(row, kinds, strict=True):
            ax.plot(truth["theta"], truth["value"], color="black", lw=1.4, label="true J", zorder=1)
            for _, fit in models[models["surrogate"] == kind].groupby("seed"):
                ax.plot(fit["theta"], fit["value"], color=METHODS[NAMES[kind]], lw=0.6, alpha=0.6)
            part = ends[(ends["surrogate"] == kind) & (ends["descent"] == descent)]
            # Vertical jitter would misplace J; horizontal positions are the data.
            ax.scatter(
                part["end"], part["value"], s=26, color=METHODS[NAMES[kind]], edgecolor="black", lw=0.6, zorder=3, label="end of descent"
            )
            start = part["start"].iloc[0]
            height = np.interp(start, truth["theta"], truth["value"])
            ax.scatter(start, height, marker="s", s=26, color="white", edgecolor="black", zorder=3, label="start")
            ax.scatter(best["theta"], best["value"], marker="*", s=110, color=YELLOW, edgecolor="black", lw=0.6, zorder=2, label="optimum")
            beyond = part["gap"][part["crossed"]]
            distance = f"ending {beyond.mean():.1f} m from the optimum" if len(beyond) else ""
            ax.set_title(f"{NAMES[kind]}, {descent}\n{len(beyond)} of {len(part)} seeds cross the wall\n{distance}", fontsize=9)
            ax.set_xticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["-π", "-π/2", "0", "π/2", "π"])
    for ax in axes[-1]:
        ax.set_xlabel("θ [rad]")
    for ax in axes[:, 0]:
        ax.set_ylabel("J(θ) [m]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, bbox_to_anchor=(0.5, -0.06 if len(descents) > 1 else -0.12))
    figure.tight_layout()
    return figure


def losses_and_descents(courses: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """Training loss of each kind of model, and the true J along each descent: medians over seeds, bands of the middle 80 %.

    courses, models: of `ball_wall.Example`.
    """
    quantities = list(dict.fromkeys(courses["quantity"]))
    figure, axes = plt.subplots(1, len(quantities), figsize=(WIDTH / 3 * len(quantities), 2.9), layout="constrained")
    for ax, quantity in zip(axes, quantities, strict=True):
        for kind, course in courses[courses["quantity"] == quantity].groupby("surrogate", sort=False):
            ax.fill_between(course["step"], course["low"], course["high"], color=METHODS[NAMES[kind]], alpha=0.15, lw=0)
            dashes = (0, (4, 2)) if kind == "simnorm" else "-"  # LayerNorm + Mish lies below it in places
            ax.plot(course["step"], course["median"], ls=dashes, color=METHODS[NAMES[kind]], lw=1.8, label=NAMES[kind])
        ax.axhline(
            models["value"][models["surrogate"] == "true J"].min(), color="0.5", lw=1, ls=":", label="optimum; bands: middle 80 % of seeds"
        )
        ax.set(xlabel="step of gradient descent", ylabel="true J(θ) [m]", title=f"descent, {quantity}")
    axes[0].lines[-1].remove()
    axes[0].set(yscale="log", xlabel="epoch", ylabel="training loss over the variance of J", title="fitting the models")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def claim_map(outcomes: pd.DataFrame) -> Figure:
    """Seeds that cross the wall (left), and how far from the optimum those end (right), for each surrogate (rows) and descent (columns)."""
    order, columns = (list(dict.fromkeys(outcomes[name])) for name in ("surrogate", "descent"))
    labels = [NAMES.get(name.split(",")[0], name) + (f",{name.split(',', 1)[1]}" if "," in name else "") for name in order]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.32 * len(order) + 1.5), sharey=True, layout="constrained")
    panels = (
        ("crossed", ".0%", "cividis", 1.0, "share of seeds that cross the wall"),
        ("gap", ".1f", "cividis_r", None, "mean distance of those from the optimum [m]"),
    )
    for ax, (column, fmt, colours, most, title) in zip(axes, panels, strict=True):
        shown = outcomes.pivot(index="surrogate", columns="descent", values=column).loc[order, columns]
        style = {"annot": True, "fmt": fmt, "cmap": colours, "vmin": 0, "vmax": most, "linewidths": 0.5, "cbar": False}
        sns.heatmap(shown, ax=ax, yticklabels=labels, annot_kws={"fontsize": 8}, **style)
        ax.set(xlabel="", ylabel="", facecolor="0.93")
        ax.set_title(title, fontsize=10)
        ax.tick_params(length=0)
        ax.set_xticklabels([name.replace(" ", "\n", 1) for name in columns], rotation=0, fontsize=8)
    return figure


def throws(world: BallWall, model: Callable[[Tensor], Tensor], paths: Mapping[str, Sequence[float]]) -> Figure:
    """The wall with the throws at which descents begin and end (Fig. 2, left), and the landscape on which they descend.

    Args:
        world: the ball and the wall.
        model: theta [1, n] -> J [1, n].
        paths: "true J" or "model" -> the angles of the descent on it, rad.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.6), width_ratios=(1.15, 1), layout="constrained")
    colours, (best, _) = {"true J": METHODS["true J"], "model": GREEN}, world.optimum()
    begin = next(iter(paths.values()))[0]
    ends = {f"end on the {name}": (path[-1], colours[name], "-") for name, path in paths.items()}
    for label, (angle, colour, style) in {"start": (begin, "0.6", ":"), **ends, "optimum": (best, YELLOW, "-")}.items():
        x, y = world.flight(torch.tensor(angle, dtype=torch.float64))
        left.plot(x, y, style, color=colour, lw=3 if label == "optimum" else 1.8, zorder=1 if label == "optimum" else 2, label=label)
        left.plot(x[-1:], y[-1:], "o", ms=5, color=colour, mec="black", mew=0.5, zorder=3)
    low, high = left.get_ylim()
    left.plot([world.wall] * 2, [low, world.height], color="0.3", lw=6, solid_capstyle="butt", zorder=0, label="the wall")
    left.set(ylim=(low, max(high, world.height + 1)), xlabel="x [m]", ylabel="y [m]", title=f"the throws, for {world.time:g} s")
    angles = torch.linspace(-torch.pi, torch.pi, 2000)
    right.plot(angles, world.objective(angles), color=colours["true J"], lw=1, label="true J")
    right.plot(angles, model(angles[None])[0], color=colours["model"], lw=1, label="model")
    for name, path in paths.items():
        along = torch.tensor(path)
        said = f"descent on the {name}: {along[0]:.2f} to {along[-1]:.2f}"
        right.plot(along, world.objective(along), "o-", markevery=[0, -1], lw=4, alpha=0.5, color=colours[name], label=said)
    right.set(xlabel="angle of the throw [rad]", ylabel="J: minus the distance [m]", title="the landscape")
    for ax, columns in ((left, 3), (right, 2)):
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)
    if warnings := world.warnings():
        figure.suptitle("\n".join(warnings), fontsize=8)
    return figure
