"""Algorithms x tasks x seeds as jobs: their table, their curves, and what is about to be spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..checkpoints import write_atomic
from ..jobs import Engine, Job, run_jobs
from ..runs import digest
from ..sweep import note_plan
from .pwm_online import OnlinePWMConfig
from .runner import Algorithm, SingleTaskSettings, load_policy, run_single_task, single_task_run

__all__ = ["SingleTaskExperiment", "curves_table", "results_table", "train_together"]

RELATIVE = {"hopper": 1.0, "ant": 1.3, "anymal": 1.5, "humanoid": 3.0, "snu_like": 6.0}
"""Cost of an update on a task, relative to Hopper's."""


@dataclass(frozen=True)
class SingleTaskExperiment:
    """Every method does only what is missing."""

    tasks: tuple[str, ...]
    algorithms: tuple[Algorithm, ...]
    settings: dict[str, SingleTaskSettings]
    """Task -> sizes."""
    train_seeds: int
    runs_dir: Path
    stiffness: float = 1.0
    device: str = "cpu"
    workers: int = 2
    engine: Engine = "local"
    progress: bool = True

    def runs(self) -> list[dict[str, object]]:
        """The arguments of each run."""
        return [
            {
                "algorithm": a,
                "task": t,
                "seed": s,
                "settings": self.settings[t],
                "stiffness": self.stiffness,
                "runs_dir": str(self.runs_dir),
            }
            for t in self.tasks
            for a in self.algorithms
            for s in range(self.train_seeds)
        ]

    def cost(self) -> str:
        """What is about to be run, and about how long it takes on this number of processes, from recorded costs on Hopper."""
        seconds = self.train_seeds * sum(RELATIVE[t] * hopper_seconds(a, self.settings[t]) for t in self.tasks for a in self.algorithms)
        each = f"{len(self.tasks)} task(s) x {len(self.algorithms)} algorithm(s) x {self.train_seeds} seed(s)"
        return f"To do at most: {each}; about {seconds / 60 / max(1, self.workers):.1f} min on {self.workers} processes, without a GPU."

    def save(self, name: str, table: pd.DataFrame) -> Path:
        """Write a table into the experiment's folder, named by what was run; returns its path."""
        folder = self.runs_dir / f"single_task-{digest(self.runs())}"
        path = folder / f"{name}.csv"
        write_atomic(path, table.to_csv(index=False))
        return path

    def policy(self, algorithm: Algorithm, task: str, seed: int):
        """The last policy of one of the runs: (observations, None) -> actions."""
        return load_policy(algorithm, task, seed, self.settings[task], self.runs_dir, stiffness=self.stiffness, device=self.device)

    def train(self) -> list[dict[str, object]]:
        """All runs; a diverged one is among them with its reason, and one whose job crashed is listed as failed."""
        return train_together([self])[0]

    def results(self) -> pd.DataFrame:
        """`results_table` of all runs."""
        return results_table(self.train())

    def curves(self) -> pd.DataFrame:
        """`curves_table` of all runs."""
        return curves_table(self.train())


def train_together(experiments: Sequence[SingleTaskExperiment]) -> list[list[dict[str, object]]]:
    """The runs of several experiments in one pool, so that no process idles between them; what each experiment's `train` returns.

    They share the first one's folder, device, workers and engine. A run that stands in several is done once.
    """
    first = experiments[0]
    each = [run for e in experiments for run in e.runs()]
    runs = {single_task_run(**arguments).folder: arguments for arguments in each}
    note_plan(first.runs_dir, "single tasks", [single_task_run(**arguments) for arguments in runs.values()])
    jobs = [Job(f"{a['task']} {a['algorithm']} seed {a['seed']}", run_single_task, {**a, "device": first.device}) for a in runs.values()]
    done = run_jobs(jobs, workers=first.workers, progress=first.progress, description="runs", engine=first.engine)
    lines = dict(zip(runs, (r.value or _failed(a, r.error) for a, r in zip(runs.values(), done, strict=True)), strict=True))
    return [[lines[single_task_run(**arguments).folder] for arguments in e.runs()] for e in experiments]


def _failed(run: dict[str, object], error: str | None) -> dict[str, object]:
    nothing = {"last": float("nan"), "best": float("nan"), "updates": 0, "curve": []}
    head = {"task": run["task"], "algorithm": run["algorithm"], "train_seed": run["seed"], "stiffness": run["stiffness"]}
    return {**head, "status": "failed", "reason": error, **nothing}


def results_table(lines: Sequence[dict[str, object]]) -> pd.DataFrame:
    """One line a run: task, algorithm, train_seed, status, reason, last, best, updates, and what it cost."""
    cost = ("gradient_steps", "env_steps", "wall_s", "cpu_s")
    ends = [line["curve"][-1] if line["curve"] else {} for line in lines]
    return pd.DataFrame(
        [
            {**{k: v for k, v in line.items() if k != "curve"}, **{name: end.get(name) for name in cost}}
            for line, end in zip(lines, ends, strict=True)
        ]
    )


def curves_table(lines: Sequence[dict[str, object]]) -> pd.DataFrame:
    """One line an evaluation: task, algorithm, train_seed, updates (of the policy), gradient_steps (of all networks), env_steps, wall_s,
    cpu_s, mean_return, training_return and more; see `run_single_task`."""
    cost, scores = ("gradient_steps", "env_steps", "wall_s", "cpu_s"), ("mean_return", "training_return", "std_over_episodes")
    columns = (*cost, *scores, "gradient_cosine", "gradient_batch_cosine", "gradient_norm_ratio", "reward_rmse")
    return pd.DataFrame(
        [
            {**{k: line[k] for k in ("task", "algorithm", "train_seed")}, "updates": row["step"], **{k: row.get(k) for k in columns}}
            for line in lines
            for row in line["curve"]
        ]
    )


def hopper_seconds(algorithm: Algorithm, settings: SingleTaskSettings) -> float:
    """CPU-seconds of one run on Hopper with 64 environments, one core of a Xeon; from measured costs of an update."""

    def online(config: OnlinePWMConfig, first: int) -> float:
        """Of a PWM run with `first` updates of the model before the policy's."""
        model = 0.016 * config.training.horizon / 5 * config.training.batch / 128 * (0.5 if config.model.residual else 1.0)
        return first * model + config.actor_critic.updates * (0.125 + config.model_updates * model)

    td = settings.tdmpc2
    return {
        "shac": settings.shac.updates * settings.shac.horizon * 0.0055,
        "pwm": settings.replay.updates * settings.replay.horizon * 0.0055 + online(settings.pwm, settings.pwm.pretraining_updates),
        "pwm_scratch": online(settings.pwm, settings.pwm.first_model_updates),
        "pwm_state_space": online(settings.state_space, settings.state_space.first_model_updates),
        "pwm_offline": settings.replay.updates * settings.replay.horizon * 0.0055
        + settings.offline.members * settings.offline.pretraining_updates * 0.016
        + settings.offline.policy.updates * 0.1,
        "tdmpc2": td.updates * td.steps * (td.envs * td.planner.samples * td.planner.iterations * 3.3e-5 + td.model_updates * 0.038),
        "ppo": settings.ppo.updates * settings.ppo.steps * 64 / 25_000,
        "sac": settings.sac.updates * settings.sac.steps * (0.01 + 0.012 * settings.sac.gradient_steps),
    }[algorithm]
