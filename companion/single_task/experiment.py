"""Algorithms x tasks x seeds as jobs: their table, their curves, and what is about to be spent."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from companion.running.jobs import Engine, Job, devices, run_jobs
from companion.running.runs import digest
from companion.running.sweep import note_plan
from companion.single_task.runner import Algorithm, SingleTaskRun, SingleTaskSettings
from pwmlib.data.checkpoints import write_atomic
from pwmlib.settings import NUMBER, Count, settings

from .cost import core_seconds, duration


@settings
class SingleTaskExperiment:
    """Every method does only what is missing."""

    tasks: tuple[str, ...]
    algorithms: tuple[Algorithm, ...]
    settings: dict[str, SingleTaskSettings]
    """Sizes on each task."""
    train_seeds: Count
    runs_dir: Path
    stiffness: Annotated[float, Field(gt=0, le=1000), NUMBER] = 1.0
    device: str = "cpu"
    workers: Count = 2
    engine: Engine = "local"
    progress: bool = True

    def runs(self) -> list[SingleTaskRun]:
        """List every run."""
        each = product(self.tasks, self.algorithms, range(self.train_seeds))
        return [SingleTaskRun(a, t, s, self.settings[t], str(self.runs_dir), self.stiffness) for t, a, s in each]

    def cost(self) -> str:
        """Say what is to be run at most and about how long it takes, with the dearest learner where it is most of it."""
        each = {a: self.train_seeds * sum(core_seconds(a, task, self.settings[task]) for task in self.tasks) for a in self.algorithms}
        total, dearest = sum(each.values()), max(each, key=each.get)
        runs = f"{len(self.tasks)} task(s) x {len(self.algorithms)} algorithm(s) x {self.train_seeds} seed(s)"
        processes = f"{self.workers} process{'es' if self.workers > 1 else ''}"
        told = f"To do at most: {runs}; about {duration(total / self.workers)} on {processes}, without a GPU"
        if len(each) > 1 and each[dearest] > total / 2:
            told += f" ({each[dearest] / total:.0%} of it {dearest})"
        on_a_gpu = ". On a GPU, which was asked for here, no run of these sizes has been timed."
        return told + (on_a_gpu if self.device.startswith("cuda") else ".")

    def save(self, name: str, table: pd.DataFrame) -> Path:
        """Write a table into the experiment's folder, named by what was run; returns its path."""
        path = self.runs_dir / f"single_task-{digest(self.runs())}" / f"{name}.csv"
        write_atomic(path, table.to_csv(index=False))
        return path

    def policy(self, algorithm: Algorithm, task: str, seed: int):
        """The last policy of one of the runs, on the CPU: (observations, None) -> actions."""
        return SingleTaskRun(algorithm, task, seed, self.settings[task], self.runs_dir, self.stiffness).policy()

    def train(self) -> list[dict[str, object]]:
        """All runs; a diverged one is among them with its reason, and one whose job crashed is listed as failed."""
        return train_together([self])[0]

    def results(self) -> pd.DataFrame:
        return results_table(self.train())

    def curves(self) -> pd.DataFrame:
        return curves_table(self.train())


def train_together(experiments: Sequence[SingleTaskExperiment]) -> list[list[dict[str, object]]]:
    """The runs of several experiments in one pool, so that no process idles between them; what each experiment's `train` returns.

    They share the first one's folder, device, workers and engine. A run that stands in several is done once.
    """
    first = experiments[0]
    runs = {run.run.folder: run for e in experiments for run in e.runs()}
    note_plan(first.runs_dir, "single tasks", [run.run for run in runs.values()])
    each_its_own = devices(first.device, len(runs), engine=first.engine)
    placed = [replace(run, device=device) for run, device in zip(runs.values(), each_its_own, strict=True)]
    jobs = [Job(run.name, SingleTaskRun.train, {"self": run}) for run in placed]
    gpus = "even" if first.device.startswith("cuda") else 0.0
    done = run_jobs(jobs, workers=first.workers, progress=first.progress, description="runs", engine=first.engine, gpus=gpus)
    lines = {folder: r.value or _failed(run, r.error) for (folder, run), r in zip(runs.items(), done, strict=True)}
    return [[lines[run.run.folder] for run in e.runs()] for e in experiments]


def _failed(run: SingleTaskRun, error: str | None) -> dict[str, object]:
    return {**run.head(), "status": "failed", "reason": error, "last": float("nan"), "best": float("nan"), "updates": 0, "curve": []}


_COST = ["gradient_steps", "env_steps", "wall_s", "cpu_s"]


def results_table(lines: Sequence[dict[str, object]]) -> pd.DataFrame:
    """One line a run: task, algorithm, train_seed, status, reason, last, best, updates, and what it cost."""
    rows = []
    for line in lines:
        end = line["curve"][-1] if line["curve"] else {}
        rows.append({**{k: v for k, v in line.items() if k != "curve"}, **{name: end.get(name) for name in _COST}})
    return pd.DataFrame(rows)


def curves_table(lines: Sequence[dict[str, object]]) -> pd.DataFrame:
    """One line an evaluation: task, algorithm, train_seed, updates (of the policy), gradient_steps (of all networks), env_steps, wall_s,
    cpu_s, mean_return, training_return and more; see `SingleTaskRun.train`."""
    scores = ["mean_return", "training_return", "std_over_episodes"]
    columns = [*_COST, *scores, "gradient_cosine", "gradient_batch_cosine", "gradient_norm_ratio", "reward_rmse"]
    rows = []
    for line in lines:
        head = {k: line[k] for k in ("task", "algorithm", "train_seed")}
        rows += [{**head, "updates": row["step"], **{k: row.get(k) for k in columns}} for row in line["curve"]]
    return pd.DataFrame(rows)
