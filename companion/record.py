"""The experiments whose tables are committed under data/results/, each with one command; resumable, on a few processes.

python -m companion.record perfect_model     closed-form cartpole and pendulum, 5 seeds
python -m companion.record offline_cartpole  cartpole-swingup on dm_control, offline from replay, 5 seeds
python -m companion.record ball_wall         the ball-wall study at laptop scale, 50 seeds
python -m companion.record online            PWM online on cheetah-run and walker-walk, two world models, 3 seeds
python -m companion.record fine_tuning       the shipped world model fine-tuned online on the same two tasks, with new policies, 3 seeds;
                                            fine_tuning_extracted: with the policies that were extracted from it
python -m companion.record hopper_shac       SHAC on Hopper at laptop scale, 5 seeds; likewise hopper_pwm, ant_shac, ...
python -m companion.record ablation_batch    a question of notebook 04 at laptop scale, 2 or 3 seeds; likewise ablation_stiffness, ...
python -m companion.record extraction        Fig. 8b on two tasks of dm_control, 3 seeds
python -m companion.record figures           draw them, and the table of notebook 03 at scale quick
python -m companion.record tables            docs/tables.md: single-task runs and ablations
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from companion.ablations.extraction import EXTRACTION_UPDATES, ExtractionStudy
from companion.ablations.questions import ABLATIONS, ablation_experiments, run_ablation
from companion.ball_wall import study as ball_wall_study
from companion.mt80.experiment import MultitaskExperiment
from companion.mt80.fine_tuning import FineTuning
from companion.mt80.jobs import gate_job, policy_job
from companion.mt80.online import online_seed
from companion.mt80.scales import FINE_TUNED, MULTITASK_SCALES, OFFLINE_CARTPOLE, ONLINE
from companion.mt80.shipped_model import SHIPPED, Artefacts
from companion.running.job import Job
from companion.running.jobs import default_workers, run_jobs
from companion.running.paths import PROJECT, writable_folder
from companion.running.results import RESULTS, save_table
from companion.single_task.experiment import SingleTaskExperiment
from companion.single_task.runner import Algorithm, SingleTaskSettings
from companion.single_task.scales import settings_for
from pwmlib.data.checkpoints import write_atomic
from pwmlib.sim.closed_form.ball_wall import BallWall
from pwmlib.tasks import task

from .perfect_model import SETTINGS, gradient_reach, run_setting

__all__ = ["RESULTS", "ball_wall", "main", "offline_cartpole", "online", "perfect_model"]


def collect(jobs: list[Job], workers: int, description: str) -> list[Any]:
    """Values of all jobs; a failed one ends the experiment with its reason (the others are kept)."""
    results = run_jobs(jobs, workers=workers, description=description)
    for result in results:
        if result.error:
            raise SystemExit(f"{result.name}: {result.error}")
    return [result.value for result in results]


def perfect_model(workers: int, runs_dir: Path, seeds: int = 5) -> None:
    """Closed-form cartpole and pendulum in all `SETTINGS`, and how far the pendulum's gradient reaches."""
    jobs = [
        Job(f"{name}, seed {seed}", run_setting, {"name": name, "seed": seed, "runs_dir": str(runs_dir)})
        for name in SETTINGS
        for seed in range(seeds)
    ]
    curves = collect(jobs, workers, "perfect model")
    save_table("perfect_model", pd.DataFrame([row for curve in curves for row in curve]), "python -m companion.record perfect_model")
    save_table("pendulum_gradient_reach", gradient_reach(), "python -m companion.record perfect_model")


def offline_seed(setting: str, seed: int, runs_dir: str, data_dir: str) -> dict[str, Any]:
    """World model, gate and policy of one seed of the offline experiment."""
    scale = replace(OFFLINE_CARTPOLE[setting], model_seed=seed)
    experiment = MultitaskExperiment(
        (task("cartpole-swingup"),), scale, 1, Path(runs_dir), Path(data_dir), device="cpu", workers=1, progress=False
    )
    quality = experiment.train_world_model()["quality"]["cartpole-swingup"]
    row = {"setting": setting, **policy_job(experiment, 0, seed), **quality, **gate_job(experiment, 0)}
    stages = {stage: next((Path(runs_dir) / stage).glob("*/run.json")) for stage in ("world_model", "policy")}
    cpu = {f"{stage}_cpu_s": json.loads(path.read_text())["cpu_s"] for stage, path in stages.items()}
    return {**row, **cpu}


def offline_cartpole(workers: int, runs_dir: Path, seeds: int = 5) -> None:
    """cartpole-swingup from the replay of one learning agent, SimNorm model trained in the ways of `OFFLINE_CARTPOLE`."""
    data = runs_dir / "episodes"
    first = next(iter(OFFLINE_CARTPOLE.values()))
    index = MultitaskExperiment((task("cartpole-swingup"),), first, 1, runs_dir, data, workers=1).generate()
    save_table("offline_cartpole_data", index.drop(columns=["shard"]), "python -m companion.record offline_cartpole")
    jobs = [
        Job(
            f"{name}, seed {seed}",
            offline_seed,
            {"setting": name, "seed": seed, "runs_dir": str(runs_dir / f"{i}-{seed}"), "data_dir": str(data)},
        )
        for i, name in enumerate(OFFLINE_CARTPOLE)
        for seed in range(seeds)
    ]
    save_table("offline_cartpole", pd.DataFrame(collect(jobs, workers, "offline cartpole")), "python -m companion.record offline_cartpole")


def ball_wall(workers: int, runs_dir: Path) -> None:
    """The ball-wall study at laptop scale."""
    scale = ball_wall_study.BALL_WALL_SCALES["laptop"]
    table, _ = ball_wall_study.study(BallWall(), scale, start=-3.141592653589793, lr=0.01, runs_dir=runs_dir)
    save_table("ball_wall", ball_wall_study.summary(table), "python -m companion.record ball_wall")
    save_table("ball_wall_outcomes", ball_wall_study.outcomes(table, BallWall()), "python -m companion.record ball_wall")
    ball_wall_example()


def ball_wall_example() -> None:
    """The models and descents of Fig. 2, 9 and 10."""
    example = ball_wall_study.example(BallWall(), ball_wall_study.BALL_WALL_SCALES["laptop"], start=-3.141592653589793, lr=0.01)
    for name in ("models", "ends", "courses"):
        save_table(f"ball_wall_{name}", getattr(example, name), "python -m companion.record ball_wall")


def online(workers: int, runs_dir: Path, seeds: int = 3) -> None:
    """PWM online on single dm_control tasks."""
    jobs = [
        Job(f"{name}, {model}, seed {seed}", online_seed, {"name": name, "model": model, "seed": seed, "runs_dir": str(runs_dir)})
        for name in ("cheetah-run", "walker-walk")
        for model in ONLINE
        for seed in range(seeds)
    ]
    curves = collect(jobs, workers, "online")
    save_table("online", pd.DataFrame([row for curve in curves for row in curve]), "python -m companion.record online")


def fine_tuning(name: str, policy: Literal["anew", "extracted"], workers: int, runs_dir: Path) -> None:
    """The shipped world model fine-tuned online on the tasks that scale laptop fine-tunes, with the policy that learns there."""
    tasks, scale = tuple(task(t) for t in FINE_TUNED["laptop"]), MULTITASK_SCALES["laptop"]
    scale = replace(scale, fine_tuning=replace(scale.fine_tuning, policy=policy))
    folders = {"runs_dir": runs_dir, "data_dir": runs_dir / "episodes"}
    experiment = MultitaskExperiment(tasks, scale, scale.train_seeds, **folders, device="cpu", workers=workers, shipped=Artefacts(SHIPPED))
    table = FineTuning(experiment, tuple(range(len(tasks)))).table()
    save_table(name, table, f"python -m companion.record {name}")


SINGLE_TASK: dict[str, dict[Algorithm, int]] = {
    "hopper": {"shac": 5, "pwm": 5, "pwm_state_space": 5, "pwm_offline": 5},
    "ant": {"shac": 3},
    "anymal": {"shac": 1},
    "humanoid": {"shac": 1},
    "snu_like": {"shac": 1},
}
"""Seeds of an algorithm on a robot, at laptop scale; 2 for those not named."""

PPO_UPDATES = {"hopper": 12_000, "ant": 18_000}
"""PPO's on these robots: two and three times those of scale laptop, with a learning rate that falls to zero. On Ant a constant one undoes
after 13 M steps what was learned (`ABLATIONS`)."""


def recorded_settings(robot: str, algorithm: Algorithm) -> SingleTaskSettings:
    """Those of scale laptop, of PPO with `PPO_UPDATES`."""
    settings = settings_for("laptop", robot)
    if algorithm != "ppo" or robot not in PPO_UPDATES:
        return settings
    return replace(settings, ppo=replace(settings.ppo, updates=PPO_UPDATES[robot], final_lr=0.0))


def single_task(robot: str, algorithm: Algorithm, workers: int, runs_dir: Path) -> None:
    """Runs of one algorithm on one robot at laptop scale: one line a run, and one line an evaluation."""
    settings, seeds = {robot: recorded_settings(robot, algorithm)}, SINGLE_TASK[robot].get(algorithm, 2)
    experiment = SingleTaskExperiment((robot,), (algorithm,), settings, seeds, runs_dir, workers=workers)
    print(experiment.cost())
    command = f"python -m companion.record {robot}_{algorithm}"
    save_table(f"single_task_{robot}_{algorithm}", experiment.results(), command)
    save_table(f"single_task_{robot}_{algorithm}_curves", experiment.curves(), command)


def ablation(name: str, workers: int, runs_dir: Path) -> None:
    """One question of notebook 04 at laptop scale: one line a run, and one line an evaluation."""
    experiments = ablation_experiments(name, "laptop", ABLATIONS[name].recorded_seeds, runs_dir, workers=workers)
    results, curves = run_ablation(name, experiments)
    save_table(f"ablation_{name}", results, f"python -m companion.record ablation_{name}")
    save_table(f"ablation_{name}_curves", curves, f"python -m companion.record ablation_{name}")


EXTRACTION_TASKS = ("cartpole-swingup", "pendulum-swingup")


def extraction(workers: int, runs_dir: Path) -> None:
    """Fig. 8b in our numbers: return against updates of the world model, at laptop scale."""
    folders = {"runs_dir": runs_dir, "data_dir": runs_dir / "episodes"}
    study = ExtractionStudy(EXTRACTION_TASKS, EXTRACTION_UPDATES["laptop"], MULTITASK_SCALES["quick"], **folders, workers=workers)
    save_table("extraction", study.table(), "python -m companion.record extraction")


MULTITASK_COMPARISONS = (
    "papermill notebooks/03_mt80.ipynb out.ipynb -p tasks 80 -p scale laptop -p data generate -p train_seeds 2 -p compared_tasks 8 "
    """-p comparisons '["tdmpc2", "one_policy", "horizon"]' -p overrides '{"tdmpc2.updates": 4000}'"""
)


EXPERIMENTS: dict[str, Callable[[int, Path], None]] = {
    "perfect_model": perfect_model,
    "offline_cartpole": offline_cartpole,
    "ball_wall": ball_wall,
    "online": online,
    **{name: partial(fine_tuning, name, policy) for name, policy in (("fine_tuning", "anew"), ("fine_tuning_extracted", "extracted"))},
    "extraction": extraction,
    **{f"{robot}_{name}": partial(single_task, robot, name) for robot in SINGLE_TASK for name in get_args(Algorithm)},
    **{f"ablation_{name}": partial(ablation, name) for name in ABLATIONS},
}


def main() -> None:
    """Run one experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", metavar="experiment", choices=[*EXPERIMENTS, "figures", "tables"], help="one of those above")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--runs-dir", default="runs/recorded")
    arguments = parser.parse_args()
    if arguments.experiment == "figures":
        from companion.paper.recorded_figures import draw_recorded

        return draw_recorded()
    if arguments.experiment == "tables":
        from companion.paper.tables import TABLES, tables_page

        write_atomic(TABLES, tables_page())
        return print(f"written: {TABLES.relative_to(PROJECT)}")
    shared = {"single_task": tuple(SINGLE_TASK), "ablations": "ablation_"}
    folder = next((name for name, prefix in shared.items() if arguments.experiment.startswith(prefix)), arguments.experiment)
    runs_dir = writable_folder(f"{arguments.runs_dir}/{folder}", "runs-dir")
    EXPERIMENTS[arguments.experiment](arguments.workers, runs_dir)


if __name__ == "__main__":
    main()
