"""What the shipped world model promises its policies on hard tasks, what happens, and which error makes the difference."""

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.reporting.colours import INDIGO, YELLOW, colours_of
from companion.reporting.style import WIDTH
from companion.running.jobs import Job, values_of
from companion.running.runs import Run, read_record, train
from pwmlib.evaluation.promises import promise
from pwmlib.evaluation.scores import evaluate_policy
from pwmlib.optimizer.pwm import PWM
from pwmlib.tasks import make, task

from .scales import MULTITASK_SCALES
from .shipped_model import SHIPPED, Artefacts
from .stages import with_shipped_model

HARD = ("walker-walk", "cheetah-run", "reacher-hard", "cup-catch", "mw-push", "mw-door-open", "mw-basketball", "mw-reach")
"""Tasks of both suites, on most of which the policies of the shipped model fail."""

VARIATIONS: dict[str, dict[str, Any]] = {
    "300 updates, H = 16": {},
    "gamma = 0.95": {"gamma": 0.95},
    "H = 4": {"horizon": 4},
    "H = 32": {"horizon": 32},
    "1000 updates": {"updates": 1000},
    "H = 4, 1000 updates": {"horizon": 4, "updates": 1000},
}
"""Name -> settings of the policy that are not those of scale laptop: one change each, and the last two together at about equal cost."""


def cheating_job(name: str, variation: str, seed: int, runs_dir: str) -> dict[str, Any]:
    """Extract one policy, act in the real task, and compare what the model promised; a resumable run. Returns its line of the table."""
    config = replace(MULTITASK_SCALES["laptop"].policy, **VARIATIONS[variation])
    t, experiment = task(name), with_shipped_model([task(name)], replace(MULTITASK_SCALES["laptop"], policy=config), 1, Path(runs_dir))

    def work(run: Run) -> dict[str, Any]:
        view = experiment.view(0, config)
        learner = PWM(view, experiment.starts(0, view), config, seed=seed)
        train(run, learner, config.updates, checkpoint_every=100)
        evaluation, played = evaluate_policy([make(t) for _ in range(10)], learner.actor, view)
        found = promise(learner.actor, learner.critics, view, played, obs_dim=t.obs_dim, gamma=config.gamma)
        return {"score": evaluation.score, "mean_return": evaluation.mean_return, "success": evaluation.success, **asdict(found)}

    params = {"model": experiment.shipped.fingerprint, "task": name, "policy": config, "seed": seed}
    run = Run(runs_dir, "cheating", f"{name}-seed{seed}", params)
    line = {"task": name, "variation": variation, "train_seed": seed, "updates": config.updates, "horizon": config.horizon}
    return line | run.execute(work) | {"cpu_s": read_record(run.folder)["cpu_s"]}


def cheating_table(seeds: int, workers: int, runs_dir: Path) -> pd.DataFrame:
    """One line a policy: its evaluation, the parts of `pwmlib.evaluation.promises.Promise`, the CPU time of extraction and evaluation, s,
    and the 90th percentile of the data's returns."""
    jobs = [
        Job(f"{name}, {v}, seed {seed}", cheating_job, {"name": name, "variation": v, "seed": seed, "runs_dir": str(runs_dir)})
        for v, seed, name in product(VARIATIONS, range(seeds), HARD)
    ]
    table = pd.DataFrame(values_of(jobs, workers=workers, description="policies"))
    return table.merge(Artefacts(SHIPPED).table("data")[["task", "data_p90"]], on="task")


PARTS = {
    "real": ("0.25", "really follows"),
    "reward": (YELLOW, "error: 16 rewards"),
    "dynamics": (INDIGO, "error: dynamics of 16 steps"),
    "beyond": ("0.65", "error: model beyond 16 steps"),
    "critics": ("0.88", "error: critics"),
}
"""Part of a promise -> its colour, none of a variation, and its name."""


def promises_figure(table: pd.DataFrame) -> Figure:
    """Draw what policies get, a dot a seed, a colour a variation; and what promises are made of, a bar a variation."""
    tasks, variations = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["variation"]))
    palette = colours_of(variations)
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.6), width_ratios=(1.25, 1), layout="constrained")
    for i, variation in enumerate(variations):
        mine, place = table[table["variation"] == variation], (i - (len(variations) - 1) / 2) * 0.8 / len(variations)
        share = mine["mean_return"] / mine["data_p90"]
        left.plot(share, mine["task"].map(tasks.index) + place, "o", ms=4, color=palette[variation], label=variation)
    left.axvline(0.7, color="0.5", lw=0.8, ls="--")
    left.set_yticks(range(len(tasks)), tasks, fontsize=8)
    left.set(ylim=(len(tasks) - 0.5, -0.5), xlim=(-0.02, None), xlabel="return / 90th percentile of the data (dashed: 0.7)")
    for y in range(1, len(tasks)):
        left.axhline(y - 0.5, color="0.9", lw=0.8)
    left.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    shares = table[list(PARTS)].div(table["promised"], axis=0).groupby(table["variation"]).mean().loc[variations]
    shares.plot.barh(stacked=True, color=[colour for colour, _ in PARTS.values()], width=0.7, legend=False, ax=right)
    right.set_ylabel("")
    right.set_yticks(range(len(variations)), variations, fontsize=8)
    right.invert_yaxis()
    right.axvline(0, color="black", lw=0.6)
    right.axvline(1, color="black", lw=0.6, ls=":")
    right.set_xlabel("share of the promise (1, dotted)")
    handles = [Line2D([], [], color=colour, lw=7, label=name) for colour, name in PARTS.values()]
    figure.legend(
        handles=handles, loc="outside lower right", ncols=3, fontsize=8, title="right: what promises are made of", title_fontsize=8
    )
    seeds, updates = table["train_seed"].nunique(), table["updates"].iloc[0]
    figure.suptitle(f"Eight hard tasks, the shipped world model, {updates} updates where not said otherwise, {seeds} seeds", fontsize=9)
    return figure
