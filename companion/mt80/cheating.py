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

from .scales import MULTITASK_SCALES, FineTuningPlan, MultitaskScale
from .shipped_model import SHIPPED, Artefacts
from .stages import MultitaskExperiment

__all__ = ["HARD", "STUDY", "VARIATIONS", "cheating_table", "promises_figure", "study_experiment"]

HARD = ("walker-walk", "cheetah-run", "reacher-hard", "cup-catch", "mw-push", "mw-door-open", "mw-basketball", "mw-reach")
"""Tasks of both suites, on most of which the policies of the shipped model fail."""

_LAPTOP = MULTITASK_SCALES["laptop"]
_SHORT = {"updates": 5000, "precision": "float32"}

STUDY = replace(_LAPTOP, training=replace(_LAPTOP.training, **_SHORT), collection=None, planner_episodes=0)
"""A world model of these eight tasks alone, as large as the shipped one, on episodes of planners, scripts and noise."""

_ROUNDS = replace(_LAPTOP.collection, training=replace(_LAPTOP.collection.training, **{**_SHORT, "updates": 1500}))
_AGENTS = replace(
    _LAPTOP.collection,
    rounds=1,
    agent=FineTuningPlan(episodes=56, first_model_updates=200, model_updates=60, policy_updates=40),
    training=replace(_LAPTOP.collection.training, **{**_SHORT, "updates": 4000}),
)

VARIATIONS: dict[str, MultitaskScale | None] = {
    "shipped model of 80 tasks": None,
    "planners' data": STUDY,
    "2 rounds of collection": replace(STUDY, collection=_ROUNDS),
    "4 rounds": replace(STUDY, collection=replace(_ROUNDS, rounds=4)),
    "replay of agents that learn": replace(STUDY, collection=_AGENTS),
}
"""Name -> numbers of the world model, its data and the policies, one change each; None is the world model that comes with the project."""


def study_experiment(variation: str, seeds: int, workers: int, runs_dir: Path, tasks: Sequence[str] = HARD) -> MultitaskExperiment:
    """Make the experiment of a variation; nothing is run."""
    scale, folders = VARIATIONS[variation], {"runs_dir": runs_dir, "data_dir": runs_dir / "episodes"}
    shipped = Artefacts(SHIPPED) if scale is None else None
    of = {"device": "cpu", "workers": workers, "progress": False, "shipped": shipped}
    return MultitaskExperiment(tuple(task(name) for name in tasks), scale or replace(_LAPTOP, collection=None), seeds, **folders, **of)


def cheating_job(variation: str, experiment: MultitaskExperiment, index: int, seed: int) -> dict[str, Any]:
    """Extract one policy, act in the real task, and compare what the model promised; a resumable run. Returns its line of the table."""
    t, config, episodes = experiment.tasks[index], experiment.scale.policy, 10
    model = experiment.shipped.fingerprint if experiment.shipped else experiment.world_model_name()
    run = Run(experiment.runs_dir, "cheating", f"{t.name}-seed{seed}", {"model": model, "task": t.name, "policy": config, "seed": seed})

    def work(run: Run) -> dict[str, Any]:
        view = FrozenWorldModel(experiment.load_world_model(), experiment.model_index(index), reward_symexp=config.reward_symexp)
        learner = PWM(view, experiment.starts(index, view), config, seed=seed)
        train(run, learner, config.updates, checkpoint_every=100)
        evaluation, played = evaluate_policy([make(t) for _ in range(episodes)], learner.actor, view)
        found = promise(learner.actor, learner.critics, view, played, obs_dim=t.obs_dim, gamma=config.gamma)
        return {"score": evaluation.score, "mean_return": evaluation.mean_return, "success": evaluation.success, **asdict(found)}

    line = {"task": t.name, "variation": variation, "train_seed": seed, "updates": config.updates, "horizon": config.horizon}
    return line | run.execute(work)


def cheating_table(seeds: int, workers: int, runs_dir: Path, tasks: Sequence[str] = HARD) -> pd.DataFrame:
    """Make the table of the study, one line a policy.

    Args:
        seeds: of each task and variation.
        workers: processes.
        runs_dir: folder of the runs and the episodes; what is finished is not repeated.
        tasks: names.

    Returns:
        The evaluation, the parts of `pwmlib.evaluation.promises.Promise`, the 90th percentile of the returns in the data before any
        collection, and made_cpu_s, the CPU time of all that a variation's world model was made from after those data, s (NaN: shipped).
    """
    tables = []
    for variation in VARIATIONS:
        experiment = study_experiment(variation, seeds, workers, runs_dir, tasks)
        if not experiment.shipped:
            experiment.generate()
        experiment.train_world_model()
        each = [
            {"variation": variation, "experiment": experiment, "index": i, "seed": seed} for seed in range(seeds) for i in range(len(tasks))
        ]
        jobs = [Job(f"{tasks[given['index']]}, {variation}, seed {given['seed']}", cheating_job, given) for given in each]
        table = pd.DataFrame(values_of(jobs, workers=workers, description=variation)).assign(made_cpu_s=_made(experiment))
        tables.append(table.merge(experiment.data()[["task", "data_p90"]], on="task"))
    return pd.concat(tables, ignore_index=True)


def _made(experiment: MultitaskExperiment) -> float:
    """CPU time of the world model's rounds and of the collections between them, s."""
    if experiment.shipped:
        return float("nan")
    models = [
        replace(experiment, round=number)
        for number in range((experiment.scale.collection.rounds if experiment.scale.collection else 0) + 1)
    ]
    runs = [e.world_model_run() for e in models] + [e.collection_run(i) for e in models[:-1] for i in range(len(e.tasks))]
    return sum(read_record(run.folder)["cpu_s"] for run in runs)


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
