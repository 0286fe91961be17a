"""Offline episodes of a task, by the behaviours of a plan, written shard by shard."""

from __future__ import annotations

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

__all__ = ["behaviour_quantiles", "data_quantiles", "generate_task", "generation_job", "generation_run"]


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
    """Per suite (each_task: per task) and behaviour: tasks, episodes, mean, 10th, 50th and 90th percentile of the returns, and the shares
    that end in success and that touch it. index: one line an episode, as of `EpisodeStore.index`."""
    suites = {name: find_task(name).suite for name in index["task"].unique()}
    keys = ["suite", *(["task"] if each_task else []), "behaviour"]
    rows = []
    for group, episodes in index.assign(suite=index["task"].map(suites)).groupby(keys, sort=False):
        counts = {} if each_task else {"tasks": episodes["task"].nunique()}
        counts |= {"episodes": len(episodes), "mean": episodes["return"].mean()}
        quantiles = dict(zip(("p10", "p50", "p90"), episodes["return"].quantile([0.1, 0.5, 0.9]), strict=True))
        shares = {name: episodes[name].astype(float).mean() for name in ("success", "touched")}
        rows.append({**dict(zip(keys, group, strict=True)), **counts, **quantiles, **shares})
    return pd.DataFrame(rows)


def data_quantiles(index: pd.DataFrame) -> pd.DataFrame:
    """Per task: number of episodes, 10th, 50th and 90th percentile of their returns, and the share that ends in success."""
    rows = []
    for name, group in index.groupby("task", sort=False):
        quantiles = group["return"].quantile([0.1, 0.5, 0.9]).to_numpy()
        labels = ("data_p10", "data_p50", "data_p90")
        rows.append(
            {
                "task": name,
                "episodes": len(group),
                **dict(zip(labels, quantiles, strict=True)),
                "data_success": group["success"].astype(float).mean(),
            }
        )
    return pd.DataFrame(rows)
