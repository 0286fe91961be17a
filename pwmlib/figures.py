"""Figures, each drawn from tidy tables, saved as PNG and PDF with their provenance."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .checkpoints import write_atomic
from .double_pendulum import FEEDBACK, REWARD_UNITS
from .runs import environment_stamp

__all__ = [
    "NAMES",
    "claim_map",
    "disturbance_growth",
    "gradient_curves",
    "gradient_fidelity_curves",
    "gradient_switches",
    "landscapes",
    "losses_and_descents",
    "offline_cartpole_scores",
    "perfect_model_curves",
    "save_figure",
    "simulator_overview",
    "use_style",
]

WIDTH = 9.5
"""Of figures, inches at most: a notebook's width; in print, at 6.75 inches, their text of 8 points has almost 6."""
COLOURS = {"relu": "#D55E00", "layernorm_mish": "#0072B2", "simnorm": "#009E73", "true J": "#000000"}
"""Okabe-Ito, distinguishable with colour-vision deficiencies."""
OPTIMUM = "#F0E442"
NAMES = {"relu": "ReLU", "layernorm_mish": "LayerNorm + Mish", "simnorm": "SimNorm", "true J": "true J"}


def use_style() -> None:
    """The project's look: quiet axes, readable at notebook width and in print."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.85)
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "pdf.fonttype": 42,
        }
    )


def save_figure(
    figure: Figure, folder: Path, name: str, *, paper: str, inputs: Sequence[Path] = (), command: str = "", source: str = "ours",
    changed: Mapping[str, object] = MappingProxyType({}),
) -> Path:  # fmt: skip
    """Write name.png and name.pdf and note in index.json which paper figure it is, whose numbers it shows and what it was drawn from.

    changed: parameters that are not the usual ones. They stand above the picture and in its name, so that it replaces none of those.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if changed:
        told = ", ".join(f"{key} = {value}" for key, value in changed.items())
        figure.text(0.5, 1.0, textwrap.fill(f"changed: {told}", 110), ha="center", va="bottom", fontsize=8, color="#CC3311")
        slug = re.sub(r"[^\w.-]+", "-", told).strip("-")
        name = f"{name}--{slug if len(slug) <= 80 else slug[:60] + hashlib.sha256(slug.encode()).hexdigest()[:8]}"
    stamp = environment_stamp()
    entry = {
        "paper": paper,
        "source": source,
        "inputs": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in inputs},
        "command": command,
        "commit": stamp["commit"],
        "versions": stamp["versions"],
    }
    note = json.dumps(entry)
    png = folder / f"{name}.png"
    figure.savefig(png, metadata={"Description": note})
    figure.savefig(folder / f"{name}.pdf", metadata={"Subject": note})
    index = folder / "index.json"
    known = json.loads(index.read_text()) if index.is_file() else {}
    write_atomic(index, json.dumps({**known, name: entry}, indent=1, sort_keys=True) + "\n")
    return png


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
                ax.plot(fit["theta"], fit["value"], color=COLOURS[kind], lw=0.6, alpha=0.6)
            part = ends[(ends["surrogate"] == kind) & (ends["descent"] == descent)]
            # Vertical jitter would misplace J; horizontal positions are the data.
            ax.scatter(part["end"], part["value"], s=26, color=COLOURS[kind], edgecolor="black", lw=0.6, zorder=3, label="end of descent")
            start = part["start"].iloc[0]
            height = np.interp(start, truth["theta"], truth["value"])
            ax.scatter(start, height, marker="s", s=26, color="white", edgecolor="black", zorder=3, label="start")
            ax.scatter(
                best["theta"], best["value"], marker="*", s=110, color="#F0E442", edgecolor="black", lw=0.6, zorder=2, label="optimum"
            )
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
            ax.fill_between(course["step"], course["low"], course["high"], color=COLOURS[kind], alpha=0.15, lw=0)
            ax.plot(course["step"], course["median"], color=COLOURS[kind], lw=1.8, label=NAMES[kind])
        ax.axhline(models["value"][models["surrogate"] == "true J"].min(), color="0.5", lw=1, ls=":")
        ax.set(xlabel="step of gradient descent", ylabel="true J(θ) [m]", title=f"descent, {quantity}")
    axes[0].lines[-1].remove()
    axes[0].set(yscale="log", xlabel="epoch", ylabel="training loss / variance", title="fitting the models")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
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


def perfect_model_curves(table: pd.DataFrame) -> Figure:
    """Return where the model is perfect against policy updates, one panel a world: thin lines are seeds, thick ones medians."""
    worlds = {"cartpole": "cartpole swing-up", "pendulum": "pendulum swing-up (return of the true, sparse reward)"}
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.9), sharey=True, layout="constrained")
    for ax, (world, title) in zip(axes, worlds.items(), strict=True):
        part = table[table["setting"].str.startswith(world)]
        settings = list(dict.fromkeys(part["setting"]))
        for colour, setting in zip(sns.color_palette("colorblind", len(settings)), settings, strict=True):
            curves = part[part["setting"] == setting].pivot(index="step", columns="train_seed", values="return")
            ax.plot(curves.index, curves, color=colour, lw=0.6, alpha=0.5)
            label = f"{setting.removeprefix(world + ', ')} ({curves.shape[1]} seeds)"
            ax.plot(curves.index, curves.median(axis=1), color=colour, lw=2.4, label=label)
        ax.set(xlabel="policy updates", ylim=(0, 1000), title=title)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)
    axes[0].set_ylabel("return of 1000")
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
        right.scatter([i - 0.1] * len(part), part["mean_return"], color="#0072B2", s=30, label="last" if i == 0 else None)
        right.scatter([i + 0.1] * len(part), 10 * part["best_score"], color="#E69F00", s=30, label="best" if i == 0 else None)
    right.set_xticks(range(len(settings)), [s.replace(", ", "\n") for s in settings])
    right.set(title="policies, one dot a seed", xlim=(-0.5, len(settings) - 0.5))
    right.legend(fontsize=8, loc="lower right")
    return figure


def simulator_overview(shac: pd.DataFrame, speed: pd.DataFrame) -> Figure:
    """The six robots at the start of an episode; SHAC learning Hopper, one line a seed; the cost of a step in units of t_mlp."""
    from .envs import ENVS, DifferentiableEnv
    from .envs.render import render_frames

    figure = plt.figure(figsize=(WIDTH, 5.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.9])
    for axes, name in zip(top.subplots(1, 6), ENVS, strict=True):
        env = DifferentiableEnv(name, 1)
        axes.imshow(render_frames(env.model, env.state, stride=1, size=(2.4, 2.6))[0, 22:200])
        axes.set_axis_off()
        axes.set_title(f"{name}\nobservation {env.obs_dim}, action {env.action_dim}", fontsize=8)
    left, right = bottom.subplots(1, 2)
    for _, curve in shac.groupby("seed"):
        left.plot(curve["cpu_seconds"], curve["return"], marker="o", markersize=3, color="#0072B2", alpha=0.6)
    left.set(
        xlabel="seconds on one core",
        ylabel="return of one episode",
        title=f"SHAC on Hopper, {shac['seed'].nunique()} seeds",
        ylim=(0, None),
    )
    parts = speed.assign(backward=speed["t_mlp"] - speed["forward_t_mlp"])
    right.barh(parts["env"], parts["forward_t_mlp"], color="#56B4E9", label="forward")
    right.barh(parts["env"], parts["backward"], left=parts["forward_t_mlp"], color="#0072B2", label="backward")
    right.axvline(1.0, color="0.3", linewidth=1, linestyle="--")
    right.text(1.1, 0, "one 64x256 MLP\nforward + backward", fontsize=8, va="center")
    right.set(xlabel="cost of one control step, 64 environments, one thread [t_mlp]", title="Whole environment step")
    right.invert_yaxis()
    right.legend(loc="center right")
    return figure


WORLD_COLOURS = {"true": "#000000", "model, H = 3": "#D55E00", "model, H = 16": "#0072B2", "true, zeroth order": "#7F7F7F"}


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
                colour, style = WORLD_COLOURS.get(world, "0.5"), ":" if world.endswith("zeroth order") else "-"
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
    title = "bands: bootstrap intervals, nominally 95 %; what they reach is in data/results/esnr_coverage.csv"
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), title=title, title_fontsize=8)
    return figure


def gradient_switches(table: pd.DataFrame) -> Figure:
    """The units of the reward change the variance and no ESNR; the formula changes the ESNR. Trained policy, same actions."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 3.6), layout="constrained")
    same = table[table["setting"] == "trained policy, same actions"].set_index("world")
    units = table[table["setting"] == REWARD_UNITS]
    for ax, column, label in ((left, "mean_variance", "variance, mean over parameters"), (middle, "esnr", "ESNR (Eq. 5)")):
        ax.plot(same.loc["true", "horizon"], same.loc["true", column], color="black", label="the environment's")
        ax.plot(units["horizon"], units[column], color="#E69F00", ls="--", label="reward / 21554 + 1, as released")
        ax.set(yscale="log", xlabel="horizon H [steps]", ylabel=label)
    left.set_title("true dynamics, units of the reward", fontsize=9)
    middle.set_title("true dynamics, units of the reward", fontsize=9)
    left.legend(fontsize=8)
    formulas = {"esnr": "-", "esnr_unbiased": "--", "esnr_released": "-.", "esnr_released_unbiased": ":"}
    names = ("Eq. 5", "Eq. 5, unbiased", "mean of ratios, as released", "mean of ratios, unbiased")
    for world in ("true", "model, H = 16"):
        for (column, style), name in zip(formulas.items(), names, strict=True):
            values = same.loc[world, column].where(same.loc[world, column] > 0)  # an unbiased estimate of about 0 may fall below it
            right.plot(same.loc[world, "horizon"], values, color=WORLD_COLOURS[world], ls=style, lw=1.2)
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
            colour, part = WORLD_COLOURS[world], table[table["world"] == world]
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
    axes[1, 0].set_yticks([0.2, 0.5, 1, 2, 4], ["0.2", "0.5", "1", "2", "4"])
    axes[1, 1].set(xlabel="updates of the model", xscale="log")
    axes[1, 1].set_xticks(sorted(table["updates"].unique()), [str(n) for n in sorted(table["updates"].unique())])
    axes[1, 1].minorticks_off()
    axes[1, 2].set_xticks(range(len(kinds)), [textwrap.fill(kind, 10) for kind in kinds], fontsize=7)
    axes[0, 0].set_title("states visited by the policy", fontsize=9)
    axes[0, 1].set_title(f"training time, horizon {at}", fontsize=9)
    axes[0, 2].set_title(f"kind of start state, horizon {at}", fontsize=9)
    for world in worlds:
        axes[0, 0].plot([], [], color=WORLD_COLOURS[world], label=world)
    axes[0, 0].plot([], [], color="0.4", label="mean over samples (band: middle half; dot)")
    axes[0, 0].plot([], [], color="0.4", ls="--", label="mean gradient of the batch (cross)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def disturbance_growth(growth: pd.DataFrame) -> Figure:
    """How a small disturbance of the start grows under the same actions: medians, bands hold the middle half of the samples."""
    figure, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
    for world, curve in growth.groupby("world"):
        colour = WORLD_COLOURS.get(world, "0.5")
        ax.plot(curve["horizon"], curve["growth"], color=colour, label=world)
        ax.fill_between(curve["horizon"], curve["growth_low"], curve["growth_high"], color=colour, alpha=0.18, linewidth=0)
    ax.axhline(1.0, color="0.6", linewidth=0.8)
    ax.set(yscale="log", xlabel="steps", ylabel="|difference| / |difference at the start|")
    ax.legend()
    return figure
