"""What the shipped world model promises its policies on hard tasks, what happens, and which error makes the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.reporting.style import WIDTH
from companion.running.job import Job
from companion.running.jobs import values_of
from companion.running.runs import Run, read_record, train
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
    "gamma = 0.95": {"gamma": 0.95},
    "H = 4": {"horizon": 4},
    "H = 32": {"horizon": 32},
    "1000 updates": {"updates": 1000},
}
"""Name -> settings of the policy that are not those of scale laptop, one change each."""


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
    return line | run.execute(work) | {"cpu_s": read_record(run.folder)["cpu_s"]}


def cheating_table(seeds: int, workers: int, runs_dir: Path, tasks: Sequence[str] = HARD) -> pd.DataFrame:
    """Make the table of the study, one line a policy.

    Args:
        seeds: of each task and variation.
        workers: processes.
        runs_dir: folder of the runs; finished ones are not repeated.
        tasks: names.

    Returns:
        The evaluation, the parts of `pwmlib.evaluation.promises.Promise`, the CPU time of extraction and evaluation, s, and the 90th
        percentile of the data's returns.
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
    """Draw each promise as what really follows and three errors, a panel a variation, a bar a task; dots are the seeds' promises."""
    tasks, variations = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["variation"]))
    figure, axes = plt.subplots(
        len(variations), 1, figsize=(WIDTH, 0.6 + 2.6 * len(variations)), layout="constrained", squeeze=False, sharex=True
    )
    colours = {"real": "0.35", "reward": "#E69F00", "dynamics": "#D55E00", "bootstrap": "#56B4E9"}
    for ax, variation in zip(axes[:, 0], variations, strict=True):
        mine = table[table["variation"] == variation]
        means = mine.groupby("task")[["mean_return", "data_p90", *colours]].mean().loc[tasks]
        for y, name in enumerate(tasks):
            above, below = 0.0, 0.0
            for part, colour in colours.items():
                width = means.loc[name, part]
                ax.barh(y, width, left=above if width >= 0 else below, color=colour, height=0.7)
                above, below = above + max(width, 0.0), below + min(width, 0.0)
            seeds = mine.loc[mine["task"] == name, "promised"]
            ax.plot(seeds, [y] * len(seeds), "o", color="black", ms=3)
        share = 100 * means["mean_return"] / means["data_p90"]
        ax.set_yticks(range(len(tasks)), [f"{name} ({share[name]:.0f} %)" for name in tasks], fontsize=8)
        ax.axvline(0, color="black", lw=0.6)
        ax.invert_yaxis()
        ax.set_title(f"{variation}, {mine['train_seed'].nunique()} seeds (percentages: return / 90th percentile of the data)", fontsize=9)
    axes[-1, 0].set_xlabel("discounted return from states of the policy's episodes, symlog rewards")
    handles = [Line2D([], [], color=colour, lw=7) for colour in colours.values()] + [Line2D([], [], color="black", marker="o", lw=0, ms=3)]
    names = ["real", "error of the reward", "of the dynamics over 16 steps", "of the critics' value there", "promised, a dot a seed"]
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8)
    return figure
