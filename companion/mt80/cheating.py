"""What stops a policy from being cheated by its world model: one change at a time on hard tasks, and which error it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from companion.reporting.style import WIDTH
from companion.running.job import Job
from companion.running.jobs import values_of
from companion.running.runs import Run, train
from pwmlib.evaluation.promises import promise
from pwmlib.evaluation.scores import evaluate_policy
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.optimizer.pwm import PWM
from pwmlib.tasks import make, task

from .scales import MULTITASK_SCALES
from .shipped_model import SHIPPED, Artefacts
from .stages import MultitaskExperiment

__all__ = ["HARD", "VARIATIONS", "cheating_table", "promises_figure"]

HARD = ("walker-walk", "cheetah-run", "reacher-hard", "cup-catch", "mw-push", "mw-door-open", "mw-basketball", "mw-reach")
"""Tasks of both suites, on most of which the policies of the shipped model fail."""

VARIATIONS: dict[str, dict[str, Any]] = {
    "300 updates, H = 16": {},
}
"""What is changed in the policy's settings of scale laptop, one thing at a time; the world model is the shipped one, frozen."""


def cheating_job(name: str, variation: str, seed: int, runs_dir: str) -> dict[str, Any]:
    """Extract one policy, act in the real task, and compare what the model promised; a resumable run. Returns its line of the table."""
    config = replace(MULTITASK_SCALES["laptop"].policy, **VARIATIONS[variation])
    t, shipped, episodes = task(name), Artefacts(SHIPPED), 10

    def work(run: Run) -> dict[str, Any]:
        scale = replace(MULTITASK_SCALES["laptop"], policy=config)
        folders = {"runs_dir": Path(runs_dir), "data_dir": Path(runs_dir)}
        experiment = MultitaskExperiment((t,), scale, 1, **folders, device="cpu", workers=1, progress=False, shipped=shipped)
        view = FrozenWorldModel(shipped.world_model(), shipped.index(t), reward_symexp=config.reward_symexp)
        learner = PWM(view, experiment.starts(0, view), config, seed=seed)
        train(run, learner, config.updates, checkpoint_every=100)
        evaluation, played = evaluate_policy([make(t) for _ in range(episodes)], learner.actor, view)
        found = promise(learner.actor, learner.critics, view, played, obs_dim=t.obs_dim, gamma=config.gamma)
        return {"score": evaluation.score, "mean_return": evaluation.mean_return, "success": evaluation.success, **asdict(found)}

    run = Run(runs_dir, "cheating", f"{name}-seed{seed}", {"model": shipped.fingerprint, "task": name, "policy": config, "seed": seed})
    line = {"task": name, "variation": variation, "train_seed": seed, "updates": config.updates, "horizon": config.horizon}
    return line | run.execute(work)


def cheating_table(seeds: int, workers: int, runs_dir: Path, tasks: Sequence[str] = HARD) -> pd.DataFrame:
    """Make the table of the study, one line a policy.

    Args:
        seeds: of each task and variation.
        workers: processes.
        runs_dir: folder of the runs; finished ones are not repeated.
        tasks: names.

    Returns:
        The evaluation, the parts of `pwmlib.evaluation.promises.Promise`, and the 90th percentile of the data's returns.
    """
    each = [
        {"name": name, "variation": variation, "seed": seed, "runs_dir": str(runs_dir)}
        for variation in VARIATIONS
        for seed in range(seeds)
        for name in tasks
    ]
    jobs = [Job(f"{given['name']}, {given['variation']}, seed {given['seed']}", cheating_job, given) for given in each]
    table = pd.DataFrame(values_of(jobs, workers=workers, description="policies"))
    return table.merge(Artefacts(SHIPPED).table("data")[["task", "data_p90"]], on="task")


def promises_figure(table: pd.DataFrame) -> Figure:
    """Draw each promise as what really follows and three errors, a bar a variation, a panel a task; dots are the seeds' promises."""
    tasks, variations = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["variation"]))
    columns = 4
    figure, axes = plt.subplots(
        -(-len(tasks) // columns), columns, figsize=(WIDTH, 2.3 * -(-len(tasks) // columns)), layout="constrained", squeeze=False
    )
    colours = {"real": "0.35", "reward": "#E69F00", "dynamics": "#D55E00", "bootstrap": "#56B4E9"}
    for ax, name in zip(axes.flat, tasks, strict=False):
        mine = table[table["task"] == name]
        means = mine.groupby("variation")[["promised", *colours]].mean().loc[variations]
        for y, variation in enumerate(variations):
            above, below = 0.0, 0.0
            for part, colour in colours.items():
                width = means.loc[variation, part]
                ax.barh(y, width, left=above if width >= 0 else below, color=colour, height=0.7)
                above, below = above + max(width, 0.0), below + min(width, 0.0)
            seeds = mine.loc[mine["variation"] == variation, "promised"]
            ax.plot(seeds, [y] * len(seeds), "o", color="black", ms=3)
        share = mine.assign(share=mine["mean_return"] / mine["data_p90"]).groupby("variation")["share"].mean()
        first = tasks.index(name) % columns == 0
        labels = [f"{v}: {100 * share[v]:.0f} %" if first else f"{100 * share[v]:.0f} %" for v in variations]
        ax.set_yticks(range(len(variations)), labels, fontsize=7)
        ax.set_title(name, fontsize=9)
        ax.axvline(0, color="black", lw=0.6)
        ax.invert_yaxis()
        ax.tick_params(axis="x", labelsize=7)
    for ax in axes.flat[len(tasks) :]:
        ax.set_axis_off()
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    names = ["real", "error of the reward", "of the dynamics", "of the critics' bootstrap"]
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)
    figure.supxlabel("discounted return (symlog rewards); percentages: real return / 90th percentile of the data", fontsize=8)
    return figure
