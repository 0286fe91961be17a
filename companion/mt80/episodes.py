"""Offline episodes of a task, by the behaviours of a plan, written shard by shard."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.running.runs import Run, plain
from pwmlib.data import BEHAVIOURS, Episode, EpisodeStore, make_behaviour
from pwmlib.data.store import GENERATOR_VERSION, record
from pwmlib.optimizer.online_episodes import OnlineAgent
from pwmlib.tasks import Task, make
from pwmlib.tasks import task as find_task

from .scales import DataPlan


def generation_run(name: str, plan: DataPlan, folder: str, runs_dir: str) -> Run:
    """Name the run of `generation_job`."""
    return Run(runs_dir, "episodes", name, {"plan": plan, "data_dir": folder, "generator": GENERATOR_VERSION})


def generation_job(name: str, plan: DataPlan, folder: str, runs_dir: str) -> int:
    """`generate_task` as a run, so that a sweep's status tells it; episodes that are gone are written again."""
    return generation_run(name, plan, folder, runs_dir).execute(lambda run: generate_task(name, plan, folder), always=True)


def generate_task(name: str, plan: DataPlan, folder: str) -> int:
    """Write the episodes of one task that are not there yet, or are damaged. Returns how many were written."""
    t = find_task(name)
    store, env, written = EpisodeStore(folder, t), None, 0
    store.check_plan(plain(plan))
    counts = plan.dm_control if t.suite == "dm_control" else plan.metaworld
    for behaviour, count in counts.items():
        for start in range(0, count, plan.shard):
            shard = f"{behaviour}-{start:05d}"
            if store.has(shard):
                continue
            env = env or make(t)
            stop = min(count, start + plan.shard)
            store.write(shard, [_scripted_episode(env, behaviour, plan.seed, i) for i in range(start, stop)])
            written += stop - start
    if t.suite == "dm_control" and plan.replay is not None and not store.has("replay"):
        episodes = _replay(t, plan, folder)
        store.write("replay", episodes)
        written += len(episodes)
    return written


def _scripted_episode(env: Any, behaviour: str, seed: int, index: int) -> Episode:
    rng = np.random.default_rng([seed, list(BEHAVIOURS).index(behaviour), index])
    episode_seed = int(rng.integers(2**31))
    return record(env, make_behaviour(behaviour, env, rng), seed=episode_seed, behaviour=behaviour)


def _replay(t: Task, plan: DataPlan, folder: str) -> list[Episode]:
    """All episodes of an online PWM agent, resumable after every fifth."""
    agent = OnlineAgent(make(t), plan.replay, seed=plan.seed)
    run = Run(Path(folder) / t.name, "agent", t.name, {"seed": plan.seed, "config": plan.replay, "generator": GENERATOR_VERSION})

    def work(run: Run) -> dict[str, Any]:
        saved = run.load_checkpoint()
        if saved is not None:
            agent.load_state_dict(saved)
        while not agent.finished:
            run.log(**agent.advance())
            if len(agent.episodes) % 5 == 0 or agent.finished:
                run.save_checkpoint(agent.state_dict())
        return {"episodes": len(agent.episodes)}

    run.execute(work)
    if not agent.finished:
        agent.load_state_dict(run.load_checkpoint())
    return agent.episodes


def behaviour_quantiles(index: pd.DataFrame, *, each_task: bool = False) -> pd.DataFrame:
    """Summarise an index of episodes, as of `EpisodeStore.index`, by suite (each_task: by task) and behaviour: columns tasks (of a suite),
    episodes, mean, p10, p50, p90 of the returns, and the shares success and touched."""
    suites = {name: find_task(name).suite for name in index["task"].unique()}
    flags = {name: index[name].astype(float) for name in ("success", "touched")}
    by = ["suite", *(["task"] if each_task else []), "behaviour"]
    groups = index.assign(suite=index["task"].map(suites), **flags).groupby(by, sort=False)
    tasks = {} if each_task else {"tasks": ("task", "nunique")}
    numbers = {"episodes": ("return", "size"), "mean": ("return", "mean"), **_percentiles("p")}
    return groups.agg(**tasks, **numbers, success=("success", "mean"), touched=("touched", "mean")).reset_index()


def data_quantiles(index: pd.DataFrame) -> pd.DataFrame:
    """Summarise the data by task: number of episodes, percentiles of their returns, and the share that ends in success."""
    groups = index.assign(data_success=index["success"].astype(float)).groupby("task", sort=False)
    return groups.agg(episodes=("return", "size"), **_percentiles("data_p"), data_success=("data_success", "mean")).reset_index()


def _percentiles(prefix: str) -> dict[str, tuple[str, Callable[[pd.Series], float]]]:
    """Three aggregations of the returns, by name."""
    return {f"{prefix}{percent}": ("return", partial(pd.Series.quantile, q=percent / 100)) for percent in (10, 50, 90)}
