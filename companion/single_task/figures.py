"""Figures of Section 4.1: learning curves (Fig. 13), aggregates and profile (Fig. 5), in our numbers."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from companion.reporting.cells import iqm
from companion.reporting.colours import METHODS, colours_of
from companion.reporting.statistics import iqm_with_interval, performance_profile
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.render import render_frames
from pwmlib.tasks.video import save_gif

from .experiment import SingleTaskExperiment
from .runner import Algorithm
from .tables import NAMES, OWN_BODIES

_COLOURS = colours_of(NAMES.values())


def learning_curves(curves: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Return of the deterministic policy against environment steps and against training time, and what the world model's gradient is
    worth meanwhile; a row a task.

    Lines are IQMs over seeds, with 95 % bootstrap intervals where there are `ENOUGH`. Dotted: published final IQM of PWM, where the robot
    is the published one.
    """
    tasks = list(dict.fromkeys(curves["task"]))
    learned = curves["gradient_cosine"].notna().any()
    size = {"figsize": (9.5 if learned else 7.0, 2.7 * len(tasks)), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(len(tasks), 3 if learned else 2, **size)
    shown = curves.assign(algorithm=curves["algorithm"].map(NAMES), minutes=curves["cpu_s"] / 60)
    # Seeds take slightly different times: the mean time of each evaluation.
    shown["evaluation"] = shown.groupby(["task", "algorithm", "train_seed"]).cumcount()
    shown["minutes"] = shown.groupby(["task", "algorithm", "evaluation"])["minutes"].transform("mean")
    present = list(dict.fromkeys(shown["algorithm"]))
    panels = [
        ("env_steps", "mean_return", "environment steps, millions", "return"),
        ("minutes", "mean_return", "CPU-minutes of training", "return"),
        ("minutes", "gradient_cosine", "CPU-minutes of training", "cosine of model's and simulator's gradient"),
    ]
    for row, task in zip(axes, tasks, strict=True):
        for ax, (x, y, x_label, y_label) in zip(row, panels, strict=False):
            part = shown[(shown["task"] == task) & shown[y].notna()]
            if part.empty:  # nobody has a world model here
                ax.set_axis_off()
                continue
            if x == "env_steps":
                acting = part.groupby("algorithm")[x].transform("nunique") > 1
                if not acting.all():
                    without = textwrap.fill(f"no steps of its own: {', '.join(part[~acting]['algorithm'].unique())}", 24)
                    ax.text(0.03, 0.86, without, va="top", fontsize=6, transform=ax.transAxes)
                part = part[acting].assign(env_steps=lambda table: table["env_steps"] / 1e6)
            banded = part.groupby("algorithm")["train_seed"].transform("nunique") >= ENOUGH
            how = {"hue": "algorithm", "hue_order": present, "palette": _COLOURS, "estimator": iqm, "legend": False, "ax": ax}
            for runs, errorbar in ((part[~banded], None), (part[banded], ("ci", 95))):
                if len(runs):
                    sns.lineplot(runs, x=x, y=y, errorbar=errorbar, n_boot=200, seed=0, **how)
            _logarithmic(ax)
            ax.set(xlabel=x_label, ylabel=task if ax is row[0] else "")
            ax.set_title(y_label, fontsize=9)
            ax.grid(alpha=0.3)
            level = published.query("algorithm == 'pwm' and task == @task")["final_iqm"]
            if y == "mean_return" and task not in OWN_BODIES and len(level) and np.isfinite(level.iloc[0]):
                ax.axhline(level.iloc[0], color=METHODS["PWM"], ls=":", lw=1)
        row[1].sharey(row[0])
        if learned:
            row[2].set_ylim(-0.3, 1.02)
    handles = [Line2D([], [], color=_COLOURS[name], label=name) for name in present]
    if set(tasks) - set(OWN_BODIES):
        handles.append(Line2D([], [], color=METHODS["PWM"], ls=":", lw=1, label="PWM, published"))
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // (1 + len(handles) // 6)), fontsize=8)
    return figure


def _logarithmic(ax: Axes) -> None:
    """Make the axis of what is drawn logarithmic; where that is less than a decade, with a few even ticks."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 3.0)) if high > 10 * low else MaxNLocator(3))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def training_curves(curves: pd.DataFrame) -> Figure:
    """Return against gradient steps, of all networks; and against environment steps beside the training return that the paper plots (mean
    of the episodes that ended since the last evaluation, noise included; dashed). A row a task, IQM over seeds."""
    tasks, kinds = list(dict.fromkeys(curves["task"])), {"mean_return": "deterministic", "training_return": "in training, with noise"}
    size = {"figsize": (7.0, 2.7 * len(tasks)), "layout": "constrained", "squeeze": False, "sharey": "row"}
    figure, axes = plt.subplots(len(tasks), 2, **size)
    names = ["task", "algorithm", "train_seed", "gradient_steps", "env_steps"]
    units = {"gradient_steps": curves["gradient_steps"] / 1e3, "env_steps": curves["env_steps"] / 1e6}
    shown = curves.assign(algorithm=curves["algorithm"].map(NAMES), **units)
    shown = shown.melt(names, list(kinds), "policy", "return").dropna(subset="return").replace({"policy": kinds})
    present = list(dict.fromkeys(shown["algorithm"]))
    common = {"y": "return", "hue": "algorithm", "hue_order": present, "palette": _COLOURS, "estimator": iqm}
    for row, task in zip(axes, tasks, strict=True):
        part = shown[shown["task"] == task]
        own = part.groupby("algorithm")["env_steps"].transform("nunique") > 1  # else it takes no steps of its own
        evaluated = part[part["policy"] == kinds["mean_return"]]
        sns.lineplot(evaluated, x="gradient_steps", **common, errorbar=("ci", 95), n_boot=200, seed=0, ax=row[0], legend=False)
        sns.lineplot(part[own], x="env_steps", style="policy", style_order=list(kinds.values()), **common, errorbar=None, ax=row[1])
        row[0].set(xlabel="gradient steps, all networks, thousands", ylabel=f"{task}\nreturn")
        row[1].set(xlabel="environment steps, millions")
        for ax in row:
            _logarithmic(ax)
            ax.grid(alpha=0.3)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    kept = [(h, name) for h, name in zip(handles, labels, strict=True) if name not in ("algorithm", "policy")]
    for ax in axes[:, 1]:
        ax.get_legend().remove()
    figure.legend(*zip(*kept, strict=True), loc="outside lower center", ncols=3, fontsize=8)
    return figure


ENOUGH = 3
"""Runs of an algorithm from which on an aggregate or a profile of them says something."""


def aggregates_and_profile(results: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Draw Fig. 5: every run's return over the published score of PPO, at the end of training and at its peak; and, where there are
    `ENOUGH` runs, their IQM with its interval and their profile.

    results: one line a run with `last` and `best`; a diverged run counts with what it had, one without a return with 0.
    """
    ppo = published[published["algorithm"] == "ppo"].set_index("task")["ppo_norm"]
    scored = results.assign(**{point: (results[point] / results["task"].map(ppo)).fillna(0.0) for point in ("last", "best")})
    algorithms, runs = list(dict.fromkeys(results["algorithm"])), results.groupby("algorithm")["train_seed"].nunique()
    several = [name for name in algorithms if runs[name] >= ENOUGH]
    size = (9.5 if several else 6.0, max(2.9, 1.6 + 0.36 * len(algorithms)))
    ratios = (1.4, 1)[: 1 + bool(several)]
    figure, axes = plt.subplots(1, len(ratios), figsize=size, layout="constrained", squeeze=False, width_ratios=ratios)
    left = axes[0, 0]
    for i, name in enumerate(algorithms):
        part, colour = scored[scored["algorithm"] == name], _COLOURS[NAMES[name]]
        for point, y, solid in (("last", i - 0.17, True), ("best", i + 0.17, False)):
            left.plot(part[point], [y] * len(part), "o", ms=5, mfc=colour if solid else "white", mec=colour, alpha=0.8)
            if name in several:
                a = iqm_with_interval(part, score=point)
                left.plot([a.low, a.high], [y, y], color="black", lw=1, zorder=0)
                left.plot(a.value, y, "|", color="black", ms=11, mew=1.8)
    names = [f"{textwrap.fill(NAMES[a], 22)} ({runs[a]})" for a in algorithms]
    left.set_yticks(range(len(algorithms)), names, fontsize=8)
    for label, name in zip(left.get_yticklabels(), algorithms, strict=True):
        label.set_color(_COLOURS[NAMES[name]])
    own = set(results["task"]) & set(OWN_BODIES)
    farthest = 1.04 * max(1.0, scored[["last", "best"]].max(axis=None))
    left.set(
        xlim=(-0.02, farthest),
        ylim=(len(algorithms) - 0.5, -0.5),
        xlabel="return / published PPO, a dot a run" + (", a body of our own:\nthe published number is no yardstick" if own else ""),
    )
    left.axvline(1, color="0.5", lw=0.8, ls="--")
    kinds = {"at the end": "0.3", "at the peak": "white"}
    handles = [Line2D([], [], marker="o", lw=0, color="0.3", mfc=fill, label=label) for label, fill in kinds.items()]
    if several:
        handles += [Line2D([], [], marker="|", color="black", ms=11, mew=1.8, lw=1, label=f"IQM of {ENOUGH} or more, 95 %")]
        right = axes[0, 1]
        for name in several:
            for point, line in (("last", "-"), ("best", ":")):
                part, colour = scored[scored["algorithm"] == name], _COLOURS[NAMES[name]]
                profile = performance_profile(part, np.linspace(0, farthest, 121), score=point)
                right.plot(profile["threshold"], profile["fraction"], line, color=colour)
        right.set(xlabel="return / published PPO (dotted: peak)", ylabel="share of runs above", ylim=(-0.02, 1.02))
        right.xaxis.set_major_locator(MaxNLocator(4))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    robots = ", ".join(name.replace("_", " ").capitalize() for name in results["task"].unique())
    figure.suptitle(f"{robots}: one dot a run (number of runs in brackets)", fontsize=10)
    for ax in axes.flat:
        ax.grid(alpha=0.3)
    return figure


BEFORE = 180
"""Steps of an episode before its pictures: three seconds."""


def gaits(experiment: SingleTaskExperiment, task: str) -> Figure:
    """Eight frames, 8 control steps apart, of the last policy of each algorithm on a task, from three seconds after its start."""
    algorithms = experiment.algorithms
    figure, axes = plt.subplots(len(algorithms), 1, figsize=(9.5, 1.45 * len(algorithms)), layout="constrained", squeeze=False)
    for ax, algorithm in zip(axes[:, 0], algorithms, strict=True):
        images = _frames(experiment, task, algorithm, count=8, every=8, size=(2.4, 1.9))
        ax.imshow(np.concatenate(list(images), 1))
        ax.set_axis_off()
        ax.set_title(NAMES[algorithm], loc="left", fontsize=9)
    return figure


def moving_gait(experiment: SingleTaskExperiment, results: pd.DataFrame, task: str, folder: Path) -> Path:
    """Save the same of the algorithm whose first seed ends best, two seconds of it, as folder/<task>_<algorithm>.gif."""
    mine = results[(results["task"] == task) & (results["train_seed"] == 0)]
    best = mine.loc[mine["last"].fillna(-np.inf).idxmax(), "algorithm"]
    images = _frames(experiment, task, best, count=40, every=3, size=(4.0, 3.0))
    return save_gif(folder / f"{task}_{best}.gif", list(images), frame_ms=50)


def _frames(
    experiment: SingleTaskExperiment, task: str, algorithm: Algorithm, *, count: int, every: int, size: tuple[float, float]
) -> np.ndarray:
    """Pictures of the first seed's policy in an episode of its own, from `BEFORE` on."""
    env = DifferentiableEnv(task, 1, seed=20_000, stiffness=experiment.stiffness)
    policy, obs, states = experiment.policy(algorithm, task, 0), env.reset(), []
    for _ in range(BEFORE + every * count):
        states.append(env.state[0].detach().clone())
        with torch.no_grad():
            obs = env.step(policy(obs, None)).obs
    return render_frames(env.model, torch.stack(states[BEFORE:]), stride=every, start=BEFORE / 60, size=size)[:count]
