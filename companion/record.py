"""The experiments whose tables are committed under data/results/, each with one command; resumable, on a few processes.

python -m companion.record perfect_model     closed-form cartpole and pendulum, 5 seeds
python -m companion.record offline_cartpole  cartpole-swingup on dm_control, offline from replay, 5 seeds
python -m companion.record ball_wall         the ball-wall study at laptop scale, 50 seeds
python -m companion.record double_pendulum_bias
                                            variance, ESNR and bias of policy gradients through 18 models of the double pendulum
python -m companion.record online            PWM online on cheetah-run and walker-walk, two world models, 3 seeds
python -m companion.record fine_tuning       the shipped world model fine-tuned online on the same two tasks, with new policies, 3 seeds;
                                            fine_tuning_extracted: with the policies that were extracted from it
python -m companion.record cheating          what the shipped world model promises on 8 hard tasks, and which part of it is wrong, 2 seeds
python -m companion.record hopper_shac       SHAC on Hopper at laptop scale, 5 seeds; likewise hopper_pwm, ant_shac, ...
python -m companion.record ablation_batch    a question of notebook 04 at laptop scale, 2 or 3 seeds; likewise ablation_stiffness, ...
python -m companion.record anchored          MetaWorld policies held near the data's good actions, shipped world model, 1 seed
python -m companion.record tdmpc2            PWM and TD-MPC2 on 8 tasks, as many updates of a model each on the same episodes, 2 seeds
python -m companion.record extraction        Fig. 8b on two tasks of dm_control, 3 seeds
python -m companion.record figures           draw them, and the table of notebook 03 at scale quick
python -m companion.record policies          figures/policies.gif: shipped policies of tasks that were learned, filmed
python -m companion.record tables            docs/tables.md: single-task runs and ablations
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from companion.ablations.extraction import ABLATION_SCALES, ExtractionStudy
from companion.ablations.questions import ABLATIONS, ablation_experiments, run_ablation
from companion.ball_wall import study as ball_wall_study
from companion.double_pendulum.bias import BIAS_SCALE, bias_study, sizes
from companion.double_pendulum.sentences import claims_by_range
from companion.mt80.anchored import Anchor
from companion.mt80.cheating import cheating_table
from companion.mt80.fine_tuning import FineTuning
from companion.mt80.jobs import gate_job, policy_job
from companion.mt80.online import online_seed
from companion.mt80.peers import MultitaskPeers, train_tdmpc2
from companion.mt80.scales import FINE_TUNED, MULTITASK_SCALES, OFFLINE_CARTPOLE, ONLINE
from companion.mt80.stages import MultitaskExperiment, with_shipped_model
from companion.running.jobs import Job, JobsFailedError, default_workers, values_of
from companion.running.paths import PROJECT, writable_folder
from companion.running.results import results_table, save_table
from companion.running.runs import read_record
from companion.single_task.experiment import SingleTaskExperiment
from companion.single_task.runner import Algorithm, SingleTaskSettings
from companion.single_task.scales import settings_for
from pwmlib.data.checkpoints import write_atomic
from pwmlib.sim.closed_form.ball_wall import BallWall
from pwmlib.tasks import MT80, select_tasks, task

from .perfect_model import SETTINGS, gradient_reach, run_setting

Tables = dict[str, pd.DataFrame]
"""Name -> what an experiment found."""


def _each(function: Callable[..., Any], settings: list[dict[str, str]], seeds: int, workers: int, **shared: str) -> list[Any]:
    """Values of a function in every setting and seed. Raises JobsFailedError; what did not fail is kept."""
    each = list(product(settings, range(seeds)))
    jobs = [Job(", ".join([*given.values(), f"seed {seed}"]), function, {**given, "seed": seed, **shared}) for given, seed in each]
    return values_of(jobs, workers=workers, description=function.__name__)


def perfect_model(workers: int, runs_dir: Path) -> Tables:
    """Closed-form cartpole and pendulum in all `SETTINGS`, and how far the pendulum's gradient reaches."""
    curves = _each(run_setting, [{"name": name} for name in SETTINGS], 5, workers, runs_dir=str(runs_dir))
    return {"perfect_model": pd.DataFrame(chain.from_iterable(curves)), "pendulum_gradient_reach": gradient_reach()}


def offline_seed(setting: str, seed: int, runs_dir: str) -> dict[str, Any]:
    """World model, gate and policy of one seed of the offline experiment."""
    scale = replace(OFFLINE_CARTPOLE[setting], model_seed=seed)
    data, folder = Path(runs_dir) / "episodes", Path(runs_dir) / f"{list(OFFLINE_CARTPOLE).index(setting)}-{seed}"
    experiment = MultitaskExperiment((task("cartpole-swingup"),), scale, 1, folder, data, device="cpu", workers=1, progress=False)
    quality = experiment.train_world_model()["quality"]["cartpole-swingup"]
    row = {"setting": setting, **policy_job(experiment, 0, seed), **quality, **gate_job(experiment, 0)}
    runs = {"world_model": experiment.world_model_run(), "policy": experiment.policy_run(0, seed)}
    return row | {f"{stage}_cpu_s": read_record(run.folder)["cpu_s"] for stage, run in runs.items()}


def offline_cartpole(workers: int, runs_dir: Path) -> Tables:
    """cartpole-swingup from the replay of one learning agent, SimNorm model trained in the ways of `OFFLINE_CARTPOLE`."""
    first = next(iter(OFFLINE_CARTPOLE.values()))
    index = MultitaskExperiment((task("cartpole-swingup"),), first, 1, runs_dir, runs_dir / "episodes", workers=1).generate()
    rows = _each(offline_seed, [{"setting": name} for name in OFFLINE_CARTPOLE], 5, workers, runs_dir=str(runs_dir))
    return {"offline_cartpole_data": index.drop(columns=["shard"]), "offline_cartpole": pd.DataFrame(rows)}


def ball_wall(workers: int, runs_dir: Path) -> Tables:
    """The ball-wall study at laptop scale, and the models and descents of Fig. 2, 9 and 10."""
    scale, options = ball_wall_study.BALL_WALL_SCALES["laptop"], {"start": -3.141592653589793, "lr": 0.01}
    table, _ = ball_wall_study.study(BallWall(), scale, **options, runs_dir=runs_dir)
    example = ball_wall_study.example(BallWall(), scale, **options)
    shown = {f"ball_wall_{name}": getattr(example, name) for name in ("models", "ends", "courses")}
    return {"ball_wall": ball_wall_study.summary(table), "ball_wall_outcomes": ball_wall_study.outcomes(table, BallWall()), **shown}


def double_pendulum_bias(workers: int, runs_dir: Path) -> Tables:
    """Section 3.2 with 1000 samples, horizons to 100, and models of three sizes and three lengths of training."""
    table = bias_study(BIAS_SCALE, sizes(), runs_dir, workers=workers)
    return {"double_pendulum_bias": table, "double_pendulum_bias_claims": claims_by_range(table)}


def online(workers: int, runs_dir: Path) -> Tables:
    """PWM online on single dm_control tasks."""
    settings = [{"name": name, "model": model} for name in ("cheetah-run", "walker-walk") for model in ONLINE]
    curves = _each(online_seed, settings, 3, workers, runs_dir=str(runs_dir))
    return {"online": pd.DataFrame(chain.from_iterable(curves))}


def fine_tuning(name: str, policy: Literal["anew", "extracted"], workers: int, runs_dir: Path) -> Tables:
    """The shipped world model fine-tuned online on the tasks that scale laptop fine-tunes, with the policy that learns there."""
    tasks, scale = [task(t) for t in FINE_TUNED["laptop"]], MULTITASK_SCALES["laptop"]
    scale = replace(scale, fine_tuning=replace(scale.fine_tuning, policy=policy))
    experiment = with_shipped_model(tasks, scale, scale.train_seeds, runs_dir, workers=workers)
    return {name: FineTuning(experiment, tuple(range(len(tasks)))).table()}


def anchored(workers: int, runs_dir: Path) -> Tables:
    """Policies of the shipped world model that are held near the data's good actions, on MetaWorld, and the imitation they begin as."""
    scale, tasks = replace(MULTITASK_SCALES["laptop"], anchor=Anchor()), [t for t in MT80 if t.suite == "metaworld"]
    experiment = with_shipped_model(tasks, scale, 1, runs_dir, workers=workers)
    parts = {"anchored": experiment.extract_policies(), "imitation alone": experiment.imitate()}
    table = pd.concat([part.assign(variation=name) for name, part in parts.items()])
    return {"anchored": table.merge(experiment.data()[["task", "data_p50", "data_p90", "data_success"]], on="task")}


COMPARED_TASKS, COMPARED_UPDATES = 8, 2000
"""How many of the tasks, and how many updates of each model: for each task as many as the shipped model of 80 had in its first training."""


def compared_model(experiment: MultitaskExperiment, method: str) -> dict[str, Any]:
    """The world model or the agent of one seed; its last losses."""
    return experiment.train_world_model() if method == "PWM" else train_tdmpc2(experiment)


def tdmpc2(workers: int, runs_dir: Path) -> Tables:
    """PWM and TD-MPC2 on 8 tasks: for each seed a world model and an agent, trained as long on the same episodes (Fig. 6)."""
    laptop, tasks = MULTITASK_SCALES["laptop"], select_tasks(COMPARED_TASKS)
    training = replace(laptop.training, updates=COMPARED_UPDATES, precision="float32")
    scale = replace(laptop, collection=None, training=training, tdmpc2=replace(laptop.tdmpc2, updates=COMPARED_UPDATES))
    how = {"runs_dir": runs_dir, "data_dir": runs_dir / "episodes", "device": "cpu", "workers": workers}
    each = [MultitaskExperiment(tasks, replace(scale, model_seed=seed), 1, **how) for seed in range(2)]
    each[0].generate()
    jobs = [
        Job(f"{method}, seed {seed}", compared_model, {"experiment": replace(e, workers=1, progress=False), "method": method})
        for seed, e in enumerate(each)
        for method in ("PWM", "TD-MPC2")
    ]
    values_of(jobs, workers=workers, description="models")
    peers = [MultitaskPeers(e, tuple(range(len(tasks)))).table("tdmpc2").assign(train_seed=e.scale.model_seed) for e in each]
    return {"multitask_tdmpc2": pd.concat(peers, ignore_index=True)}


SINGLE_TASK: dict[str, dict[Algorithm, int]] = {
    "hopper": {"shac": 5, "pwm": 5, "pwm_scratch": 2, "pwm_state_space": 5, "pwm_offline": 5, "ppo": 2, "sac": 2, "tdmpc2": 2},
    "ant": {"ppo": 2},
    "anymal": {},
    "humanoid": {},
    "snu_like": {},
}
"""Seeds of an algorithm on a robot, at laptop scale; 3 for those not named."""

SHAC_UPDATES = {"humanoid": 2000, "snu_like": 2000}
"""SHAC's on these robots: as many as on Hopper, Ant and Anymal, two and four times those of scale laptop."""

PPO_UPDATES = {"hopper": 12_000, "ant": 18_000}
"""PPO's on these robots: two and three times those of scale laptop, with a learning rate that falls to zero. On Ant a constant one undoes
after 13 M steps what was learned (`ABLATIONS`)."""


def recorded_settings(robot: str, algorithm: Algorithm) -> SingleTaskSettings:
    """Those of scale laptop, with the updates of `SHAC_UPDATES` and `PPO_UPDATES`."""
    settings = settings_for("laptop", robot)
    if algorithm == "shac" and robot in SHAC_UPDATES:
        return replace(settings, shac=replace(settings.shac, updates=SHAC_UPDATES[robot]))
    if algorithm == "ppo" and robot in PPO_UPDATES:
        return replace(settings, ppo=replace(settings.ppo, updates=PPO_UPDATES[robot], final_lr=0.0))
    return settings


def single_task(robot: str, algorithm: Algorithm, workers: int, runs_dir: Path) -> Tables:
    """Runs of one algorithm on one robot at laptop scale: one line a run, and one line an evaluation."""
    settings, seeds = {robot: recorded_settings(robot, algorithm)}, SINGLE_TASK[robot].get(algorithm, 3)
    experiment = SingleTaskExperiment((robot,), (algorithm,), settings, seeds, runs_dir, workers=workers)
    print(experiment.cost())
    name = f"single_task_{robot}_{algorithm}"
    return {name: experiment.results(), f"{name}_curves": experiment.curves()}


def ablation(name: str, workers: int, runs_dir: Path) -> Tables:
    """One question of notebook 04 at laptop scale: one line a run, and one line an evaluation."""
    experiments = ablation_experiments(name, "laptop", ABLATIONS[name].recorded_seeds, runs_dir, workers=workers)
    results, curves = run_ablation(name, experiments)
    return {f"ablation_{name}": results, f"ablation_{name}_curves": curves}


def extraction(workers: int, runs_dir: Path) -> Tables:
    """Fig. 8b in our numbers: return against updates of the world model, at laptop scale."""
    tasks, folders = (task("cartpole-swingup"), task("pendulum-swingup")), {"runs_dir": runs_dir, "data_dir": runs_dir / "episodes"}
    experiment = MultitaskExperiment(tasks, MULTITASK_SCALES["quick"], 3, **folders, device="cpu", workers=workers)
    return {"extraction": ExtractionStudy(experiment, ABLATION_SCALES["laptop"].extraction_updates).table()}


EXPERIMENTS: dict[str, tuple[str, Callable[[int, Path], Tables]]] = {
    "perfect_model": ("perfect_model", perfect_model),
    "offline_cartpole": ("mt80", offline_cartpole),
    "ball_wall": ("ball_wall", ball_wall),
    "double_pendulum_bias": ("double_pendulum", double_pendulum_bias),
    "online": ("mt80", online),
    "fine_tuning": ("mt80", partial(fine_tuning, "fine_tuning", "anew")),
    "fine_tuning_extracted": ("mt80", partial(fine_tuning, "fine_tuning_extracted", "extracted")),
    "cheating": ("mt80", lambda workers, runs_dir: {"cheating": cheating_table(2, workers, runs_dir)}),
    "anchored": ("mt80", anchored),
    "tdmpc2": ("mt80", tdmpc2),
    "extraction": ("ablations", extraction),
    **{f"{robot}_{name}": ("single_task", partial(single_task, robot, name)) for robot in SINGLE_TASK for name in get_args(Algorithm)},
    **{f"ablation_{name}": ("ablations", partial(ablation, name)) for name in ABLATIONS},
}
"""Name -> folder of data/results, and the experiment: of a number of processes and the folder of its runs."""


def main() -> None:
    """Run one experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*EXPERIMENTS, "figures", "policies", "tables"]
    parser.add_argument("experiment", metavar="experiment", choices=known, help="one of those above")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--runs-dir", default="runs/recorded")
    arguments = parser.parse_args()
    name = arguments.experiment
    if name == "figures":
        from companion.paper.recorded_figures import draw_recorded

        return draw_recorded()
    if name == "policies":
        from companion.mt80.pictures import film_shipped, learned

        return print("written:", film_shipped(PROJECT / "figures" / "policies.gif", learned(results_table("multitask_80"))[:12]))
    if name == "tables":
        from companion.paper.tables import TABLES, tables_page

        write_atomic(TABLES, tables_page())
        return print("written:", TABLES)
    folder, experiment = EXPERIMENTS[name]
    # Single-task runs share theirs, and so do ablations: what is equal in two of them runs once.
    shared = folder if folder == "single_task" else "ablations" if name.startswith("ablation_") else name
    try:
        tables = experiment(arguments.workers, writable_folder(f"{arguments.runs_dir}/{shared}", "runs-dir"))
    except JobsFailedError as error:
        raise SystemExit(str(error)) from None
    for table, found in tables.items():
        save_table(f"{folder}/{table}", found, f"python -m companion.record {name}")


if __name__ == "__main__":
    main()
