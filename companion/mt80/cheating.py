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

from .scales import MULTITASK_SCALES, MultitaskScale
from .shipped_model import SHIPPED, Artefacts
from .stages import MultitaskExperiment

__all__ = ["HARD", "VARIATIONS", "cheating_table", "promises_figure", "study_experiment"]

HARD = ("walker-walk", "cheetah-run", "reacher-hard", "cup-catch", "mw-push", "mw-door-open", "mw-basketball", "mw-reach")
"""Tasks of both suites, on most of which the policies of the shipped model fail."""

_AS_SHIPPED = replace(MULTITASK_SCALES["laptop"], collection=None, planner_episodes=0)
_AGENTS = MULTITASK_SCALES["overnight"].agents
_POLICY = _AS_SHIPPED.policy

VARIATIONS: dict[str, MultitaskScale] = {
    "300 updates, H = 16": _AS_SHIPPED,
    "1000 updates": replace(_AS_SHIPPED, policy=replace(_POLICY, updates=1000)),
    "H = 4": replace(_AS_SHIPPED, policy=replace(_POLICY, horizon=4)),
    "H = 32": replace(_AS_SHIPPED, policy=replace(_POLICY, horizon=32)),
    "gamma = 0.95": replace(_AS_SHIPPED, policy=replace(_POLICY, gamma=0.95)),
    "after agents' replay": replace(_AS_SHIPPED, agents=replace(_AGENTS, rounds=1, training=replace(_AGENTS.training, updates=4000))),
}
"""Name -> numbers of the policies, and of what the shipped world model learns before they are extracted; one change each."""


def study_experiment(variation: str, seeds: int, workers: int, runs_dir: Path, tasks: Sequence[str] = HARD) -> MultitaskExperiment:
    """Make the experiment of a variation; nothing is run."""
    of = {"device": "cpu", "workers": workers, "progress": False, "shipped": Artefacts(SHIPPED)}
    chosen = tuple(task(name) for name in tasks)
    return MultitaskExperiment(chosen, VARIATIONS[variation], seeds, runs_dir=runs_dir, data_dir=runs_dir / "data", **of)


def cheating_job(variation: str, experiment: MultitaskExperiment, index: int, seed: int) -> dict[str, Any]:
    """Extract one policy, act in the real task, and compare what the model promised; a resumable run. Returns its line of the table."""
    t, config, episodes = experiment.tasks[index], experiment.scale.policy, 10
    model = experiment.shipped.fingerprint if experiment.as_shipped else experiment.world_model_name()
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
        collection, and model_cpu_s, the CPU time of what was done to the shipped world model before policies were extracted, s.
    """
    tables = []
    for variation in VARIATIONS:
        experiment = study_experiment(variation, seeds, workers, runs_dir, tasks)
        experiment.train_world_model()
        each = [
            {"variation": variation, "experiment": experiment, "index": i, "seed": seed} for seed in range(seeds) for i in range(len(tasks))
        ]
        jobs = [Job(f"{tasks[given['index']]}, {variation}, seed {given['seed']}", cheating_job, given) for given in each]
        table = pd.DataFrame(values_of(jobs, workers=workers, description=variation)).assign(model_cpu_s=_model_cpu_s(experiment))
        tables.append(table.merge(experiment.data()[["task", "data_p90"]], on="task"))
    return pd.concat(tables, ignore_index=True)


def _model_cpu_s(experiment: MultitaskExperiment) -> float:
    """CPU time of the rounds of agents and of the world model's training, s."""
    runs: list[Run] = []
    for number in range(experiment.scale.agents.rounds if experiment.scale.agents else 0):
        runs += [replace(experiment, round=number).collection_run(i) for i in range(len(experiment.tasks))]
        runs.append(replace(experiment, round=number + 1).world_model_run())
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
