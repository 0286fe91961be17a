"""Does a kill -9 at any moment of any stage change a table? Each stage, at a tiny size, once undisturbed and once killed over and over.

A stage runs in a process group of its own, which is killed at random moments after its work began and started again on the same folder
until the stage has had its share of the kills and ends. Then its table is compared with the undisturbed one, cell by cell, to the last bit
(all but the times that were measured), and temporary files are counted. Exits with 1 if a cell differs, a file is left or a stage fails.

Run: python benchmarks/kill_nine.py [--kills 200] [--seed 0] [--stages extraction sac ...] [--csv data/results/benchmarks/kill_nine.csv]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from companion.ball_wall.study import BallWallScale, study
from companion.double_pendulum.study import run_study
from companion.double_pendulum.training import DOUBLE_PENDULUM_SCALES
from companion.mt80.scales import MULTITASK_SCALES, CollectionPlan
from companion.mt80.shipped_model import SHIPPED, Artefacts
from companion.mt80.stages import MultitaskExperiment
from companion.running.parameters import override
from companion.single_task.experiment import curves_table
from companion.single_task.runner import SingleTaskRun, SingleTaskSettings
from pwmlib.baselines.sb3_config import SB3Config
from pwmlib.baselines.tdmpc2 import TDMPC2Config
from pwmlib.baselines.tdmpc2_online import OnlineTDMPC2Config
from pwmlib.baselines.tdmpc2_planner import TDMPC2PlannerConfig
from pwmlib.data import EpisodeStore
from pwmlib.data.checkpoints import write_atomic
from pwmlib.model.twohot import TwoHot
from pwmlib.model.world_model import WorldModelConfig
from pwmlib.optimizer.offline_robots import OfflinePWMConfig
from pwmlib.optimizer.online_robots import OnlinePWMConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.optimizer.shac import SHACConfig
from pwmlib.sim.closed_form.ball_wall import BallWall
from pwmlib.tasks import select_tasks

MEASURED = ["wall_s", "cpu_s"]
BEGUN = "the work begins"
MODEL = WorldModelConfig(latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,), task_dim=0, two_hot=None)
MULTITASK = {
    "data.dm_control": {"uniform_random": 12}, "data.metaworld": {"scripted_noisy": 12}, "data.shard": 2, "data.replay.episodes": 5,
    "data.replay.random_episodes": 2, "data.replay.first_model_updates": 3, "data.replay.model_updates": 2,
    "data.replay.policy_updates": 2, "training.updates": 300, "training.batch": 16, "policy.updates": 150, "policy.horizon": 5,
    "policy.batch": 8, "planner.samples": 16, "planner.horizon": 4, "planner.elites": 2, "eval_episodes": 2, "evaluate_every": 50,
    "checkpoint_every": 10,
}  # fmt: skip


def multitask(folder: Path) -> MultitaskExperiment:
    """Two tasks, two seeds, one round of collection."""
    scale = override(MULTITASK_SCALES["quick"], MULTITASK)
    collection = CollectionPlan(
        rounds=1, episodes=6, stages=2, policy=replace(scale.policy, updates=40), training=replace(scale.training, updates=100)
    )
    tasks = select_tasks(2, ["cartpole-swingup", "mw-reach"])
    where = {"runs_dir": folder / "runs", "data_dir": folder / "data", "device": "cpu", "workers": 2, "progress": False}
    return MultitaskExperiment(tasks, replace(scale, collection=collection), 2, **where)


def episodes(folder: Path) -> pd.DataFrame:
    e = multitask(folder)
    rows = [float(np.nansum(rows, dtype=np.float64)) for t in e.tasks for shard in EpisodeStore(e.data_dir, t).arrays() for rows in shard]
    return e.generate().assign(sum_of_rows=rows)


def world_model(folder: Path) -> pd.DataFrame:
    e = replace(multitask(folder), round=0)
    weights = {name: float(value.double().sum()) for name, value in e.load_world_model().state_dict().items()}
    return pd.json_normalize({**e.train_world_model(), "weights": weights})


def evaluation(folder: Path) -> pd.DataFrame:
    tasks, e = select_tasks(2, ["mw-handle-press-side", "reacher-easy"]), multitask(folder)
    scale = replace(e.scale, eval_episodes=10)
    return replace(e, tasks=tasks, scale=scale, shipped=Artefacts(SHIPPED)).evaluate_shipped()


def single_task(algorithm: str, folder: Path) -> pd.DataFrame:
    """The learning curve of one algorithm on Hopper."""
    shac = SHACConfig(updates=40, horizon=4, actor_hidden=(16,), critic_hidden=(16,))
    pwm = OnlinePWMConfig()
    pwm = replace(
        pwm, actor_critic=replace(pwm.actor_critic, updates=30, actor_hidden=(16,), critic_hidden=(16,)), model=MODEL, random_steps=20,
        first_model_updates=4, model_updates=2, pretraining_updates=20,
    )  # fmt: skip
    policy = PWMConfig(updates=60, horizon=4, batch=8, actor_hidden=(16,), critic_hidden=(16,))
    sb3 = SB3Config(updates=40, steps=4, hidden=(16,), minibatch=8, batch=8, buffer=2000)
    tdmpc2 = OnlineTDMPC2Config(
        updates=12, steps=2, envs=3, agent=TDMPC2Config(batch=8, hidden=(16,)),
        model=replace(MODEL, two_hot=TwoHot(), termination=True), random_steps=10, first_model_updates=3, planned_episodes=2,
        planner=TDMPC2PlannerConfig(iterations=2, samples=12, prior_samples=4, elites=3),
    )  # fmt: skip
    settings = SingleTaskSettings(
        shac=shac, pwm=pwm, state_space=replace(pwm, model=replace(MODEL, residual=True)), ppo=sb3, sac=sb3, tdmpc2=tdmpc2,
        offline=OfflinePWMConfig(model=replace(MODEL, termination=True), pretraining_updates=20, policy=policy), replay=shac, envs=4,
        eval_episodes=4, evaluate_every=10, checkpoint_every=3,
    )  # fmt: skip
    return curves_table([SingleTaskRun(algorithm, "hopper", 0, settings, folder / "runs").train()])


def ball_wall(folder: Path) -> pd.DataFrame:
    scale = BallWallScale(seeds=2, steps=200, epochs=(3,), groups=())
    return study(BallWall(), scale, start=-3.0, lr=0.01, runs_dir=folder / "runs")[0]


def double_pendulum(folder: Path) -> pd.DataFrame:
    scale = override(
        DOUBLE_PENDULUM_SCALES["quick"],
        {
            "shac.updates": 30, "shac.actor_hidden": [8], "shac.critic_hidden": [8], "envs": 16, "training.updates": 200,
            "training.batch": 16, "model.latent_dim": 16, "model.encoder_hidden": [16], "model.dynamics_hidden": [16],
            "model.reward_hidden": [16], "samples": 20, "horizons": 10, "resamples": 10, "checkpoint_every": 5,
        },
    )  # fmt: skip
    return run_study(scale, folder / "runs", progress=False).table


CHAIN: dict[str, tuple[Callable[[Path], object], Callable[[Path], pd.DataFrame]]] = {
    "episodes": (lambda f: multitask(f).generate(), episodes),
    "world_model": (lambda f: replace(multitask(f), round=0).train_world_model(), world_model),
    "collection": (lambda f: replace(multitask(f), round=0).collect(), lambda f: replace(multitask(f), round=0).collect()),
    "world_model_again": (lambda f: multitask(f).train_world_model(), lambda f: pd.json_normalize(multitask(f).train_world_model())),
    "planning": (lambda f: multitask(f).check_world_model(), lambda f: multitask(f).check_world_model()),
    "extraction": (lambda f: multitask(f).extract_policies(), lambda f: multitask(f).results()),
}
"""Stages that each begin where the one before ended: what is run, and its table."""
ALONE: dict[str, Callable[[Path], pd.DataFrame]] = {
    "evaluation": evaluation,
    **{name: partial(single_task, name) for name in ("shac", "pwm", "pwm_scratch", "pwm_state_space", "pwm_offline", "tdmpc2")},
    **{name: partial(single_task, name) for name in ("ppo", "sac")},
    "ball_wall": ball_wall,
    "double_pendulum": double_pendulum,
}
STAGES = {**CHAIN, **{name: (work, work) for name, work in ALONE.items()}}


class Stage:
    """One stage as a process on a folder."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        command = [sys.executable, "-W", "ignore", __file__, "--work", name, str(folder)]
        self.process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.strip() == BEGUN:
                break
        self.began = time.perf_counter()

    def ended(self, after: float | None = None) -> bool:
        """Wait for its end, or kill the whole group after some seconds. Raises RuntimeError when it failed by itself."""
        try:
            self.process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return False
        if self.process.returncode:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.returncode} in {self.folder}")
        return True


def differing(a: pd.DataFrame, b: pd.DataFrame) -> int:
    """Cells that are not the same to the bit; all of them where rows or columns are not the same."""
    a, b = (table.drop(columns=MEASURED, errors="ignore") for table in (a, b))
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        return max(a.size, b.size)
    return int((a.astype(str) != b.astype(str)).to_numpy().sum())


def undisturbed(name: str, before: Path | None, folder: Path) -> tuple[float, pd.DataFrame]:
    """Seconds of a stage that begins with what is in `before`, and its table."""
    begin(before, folder)
    stage = Stage(name, folder)
    stage.ended()
    return time.perf_counter() - stage.began, pd.read_pickle(folder / "table.pkl")


def begin(before: Path | None, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder) if before else folder.mkdir(parents=True)


def attack(name: str, kills: int, before: Path | None, root: Path, rng: np.random.Generator) -> dict[str, object]:
    """Run a stage undisturbed in root/<name>/whole and with kills in root/<name>/cut."""
    seconds, expected = undisturbed(name, before, root / name / "whole")
    cut, killed, whole, cells, left = root / name / "cut", 0, 0, 0, 0
    begin(before, cut)
    while True:
        if not Stage(name, cut).ended(rng.uniform(0, seconds) if killed < kills else None):
            killed += 1
            continue
        whole += 1
        cells += differing(expected, pd.read_pickle(cut / "table.pkl"))
        left += sum(bool(re.fullmatch(r"\..+\.[0-9a-f]{8}", path.name)) for path in cut.rglob(".*"))
        if killed >= kills:
            break
        begin(before, cut)  # it ended before it had its share: once more
    found = {"kills": killed, "tables": whole, "cells": expected.size, "differ": cells, "temporary_files": left}
    return {"stage": name, "seconds": round(seconds, 1), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="of all stages together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--csv", help="where to write the table")
    parser.add_argument("--work", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work, table = STAGES[arguments.work[0]]
        folder = Path(arguments.work[1])
        print(BEGUN, flush=True)
        work(folder)
        table(folder).to_pickle(folder / "table.pkl")
        return
    rng, rows, before = np.random.default_rng(arguments.seed), [], None
    with tempfile.TemporaryDirectory() as root:
        share = dict(zip(arguments.stages, map(len, np.array_split(np.arange(arguments.kills), len(arguments.stages))), strict=True))
        for name in STAGES:
            if name in share:
                rows.append(attack(name, share[name], before if name in CHAIN else None, Path(root), rng))
                print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
            elif name in CHAIN and any(later in share for later in list(CHAIN)[list(CHAIN).index(name) :]):
                undisturbed(name, before, Path(root) / name / "whole")
            before = Path(root) / name / "whole" if name in CHAIN else before
    table = pd.DataFrame(rows)
    print(f"{table['kills'].sum()} kills, {table['differ'].sum()} cells differ, {table['temporary_files'].sum()} temporary files left")
    if arguments.csv:
        write_atomic(Path(arguments.csv), table.to_csv(index=False))
    sys.exit(int(table[["differ", "temporary_files"]].to_numpy().any()))


if __name__ == "__main__":
    main()
