"""Sec. 4.2 as stages of resumable runs: episodes, one world model, its gate, one policy per task and seed, the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .checkpoints import write_atomic
from .episodes import BEHAVIOURS, Episode, EpisodeStore, SliceSampler, make_behaviour
from .episodes.sampler import padded_sizes
from .episodes.store import GENERATOR_VERSION, record
from .errors import ExplainedError
from .evaluation import EVALUATION_SEED, believed_and_real_value, evaluate_planner, evaluate_policy, summarise
from .frozen import FrozenWorldModel
from .jobs import Job, JobResult, run_jobs
from .online import OnlineAgent, replay_starts
from .pretrain import held_out_fit, pretrain_world_model
from .pwm import PolicyLearner, extract_policy
from .runs import Run, digest, plain, resolve_device
from .scales import DataPlan, MultitaskScale
from .tasks import Task, make
from .tasks import task as find_task
from .world_model import WorldModel

__all__ = ["MultitaskExperiment", "StageFailedError", "data_quantiles", "gate_job", "generate_task", "policy_job"]

HELD_OUT = 0.05
"""Fraction of each task's episodes that the world model never trains on (at least one), for the reward correlation."""


class StageFailedError(ExplainedError):
    """Jobs of a stage failed; the message names each with its reason. The others are finished and will not run again."""


@dataclass(frozen=True)
class MultitaskExperiment:
    """One experiment: its tasks, scale and folders. Every method does only what is missing."""

    tasks: tuple[Task, ...]
    scale: MultitaskScale
    train_seeds: int
    runs_dir: Path
    data_dir: Path
    device: str = "auto"
    workers: int = 2
    progress: bool = True

    def generate(self) -> pd.DataFrame:
        """Episodes of all tasks, in parallel over tasks. Returns their index."""
        folder = str(self.data_dir)
        jobs = [Job(t.name, generate_task, {"name": t.name, "plan": self.scale.data, "folder": folder}) for t in self.tasks]
        self._run(jobs, "episodes")
        return pd.concat([EpisodeStore(self.data_dir, t).index() for t in self.tasks], ignore_index=True)

    def train_world_model(self) -> dict[str, Any]:
        """The world model of all tasks (Eq. 10). Returns its last losses and held-out reward correlations."""
        run, config = self.world_model_run(), self.scale.training
        training, held_out = self._split()

        def work(run: Run) -> dict[str, Any]:
            device = resolve_device(self.device)
            model = self._new_model().to(device)
            small = sum(p.numel() for p in model.parameters()) < 2_000_000
            torch.set_num_threads(1 if small else max(1, self.workers))  # threads cost a small model more than they give
            if config.standardise_obs or config.loss.normalise_reward:
                mean, std, reward_mean, reward_std = training.statistics()
                if not config.standardise_obs:
                    mean, std = torch.zeros_like(mean), torch.ones_like(std)
                scaling = (reward_mean, reward_std) if config.loss.normalise_reward else (0.0, 1.0)
                model.set_statistics(mean, std, *scaling)
            with tqdm(total=config.updates, desc="world model", disable=not self.progress) as bar:
                pretrain_world_model(
                    model,
                    training,
                    config,
                    seed=self.scale.model_seed,
                    run=run,
                    checkpoint_every=self.scale.checkpoint_every,
                    progress=lambda step: bar.update(step - bar.n),
                )
            quality = {}
            for i, t in enumerate(self.tasks):
                quality[t.name] = held_out_fit(model, _OneTask(held_out, i), horizon=config.horizon)
            return {"quality": quality, **run.rows[-1]}

        return run.execute(work)

    def check_world_model(self) -> pd.DataFrame:
        """The gate: held-out reward correlation, and the score of a planner that sees only the model. One line per task."""
        quality = self.train_world_model()["quality"]
        jobs = [Job(t.name, gate_job, {"experiment": self._for_job(), "index": i}) for i, t in enumerate(self.tasks)]
        planned = self._run(jobs, "planning in the model")
        return pd.DataFrame([{"task": t.name, **quality[t.name], **result.value} for t, result in zip(self.tasks, planned, strict=True)])

    def extract_policies(self) -> pd.DataFrame:
        """One policy per task and training seed (Algorithm 1), evaluated in the real task. One line per policy."""
        self.train_world_model()
        jobs = [
            Job(f"{t.name} seed {seed}", policy_job, {"experiment": self._for_job(), "index": i, "seed": seed})
            for i, t in enumerate(self.tasks)
            for seed in range(self.train_seeds)
        ]
        rows = [result.value for result in self._run(jobs, "policies")]
        return pd.DataFrame(rows)

    def results(self) -> pd.DataFrame:
        """The table of the experiment: each policy's score beside random behaviour, the data, planning, and the model's belief."""
        index = self.generate()
        gate = self.check_world_model()
        policies = self.extract_policies()
        baselines = pd.DataFrame(
            [result.value for result in self._run([Job(t.name, _random_job, {"name": t.name}) for t in self.tasks], "random")]
        )
        table = policies.merge(baselines, on="task").merge(data_quantiles(index), on="task").merge(gate, on="task")
        write_atomic(self.folder / "results.csv", table.to_csv(index=False))
        return table

    @property
    def folder(self) -> Path:
        """Where the table goes."""
        return self.runs_dir / f"multitask-{digest(self._identity())}"

    def world_model_run(self) -> Run:
        """The run of the world model; its parameters include a fingerprint of the data."""
        names = [t.name for t in self.tasks]
        data = {t.name: EpisodeStore(self.data_dir, t).fingerprint() for t in self.tasks}
        params = {"tasks": names, "data": data, "model": self.scale.model, "training": self.scale.training, "seed": self.scale.model_seed}
        return Run(self.runs_dir, "world_model", f"{len(names)}-tasks", params)

    def load_world_model(self) -> WorldModel:
        """The trained world model."""
        state = self.world_model_run().load_checkpoint()
        if state is None:
            raise StageFailedError(f"{self.world_model_run().folder}: no trained world model; run train_world_model() first")
        model = self._new_model()
        model.load_state_dict(state["model"])
        return model.to(resolve_device(self.device))

    def _identity(self) -> dict[str, Any]:
        return {"world_model": self.world_model_run().folder.name, "scale": self.scale, "train_seeds": self.train_seeds}

    def _for_job(self) -> MultitaskExperiment:
        return dataclasses.replace(self, progress=False, workers=1)

    def _new_model(self) -> WorldModel:
        obs_dim, action_dim = padded_sizes(self.tasks)
        dims = [t.action_dim for t in self.tasks]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.scale.model_seed)
            return WorldModel(obs_dim, action_dim, tasks=len(self.tasks), action_dims=dims, config=self.scale.model)

    def _split(self) -> tuple[SliceSampler, SliceSampler]:
        training, held_out = [], []
        for t in self.tasks:
            shards = EpisodeStore(self.data_dir, t).arrays()
            # The last episodes of each shard, so that every behaviour is held out in proportion.
            cut = [len(a) - min(max(1, round(len(a) * HELD_OUT)), len(a) - 1) for a in shards]
            training.append([a[:n] for a, n in zip(shards, cut, strict=True)])
            held_out.append([a[n:] for a, n in zip(shards, cut, strict=True) if len(a) > n])
            if not held_out[-1]:
                raise StageFailedError(
                    f"{self.data_dir}/{t.name}: every shard holds one episode; the gate needs some that are not trained on"
                )
        return SliceSampler(self.tasks, training), SliceSampler(self.tasks, held_out)

    def _run(self, jobs: Sequence[Job], description: str) -> list[JobResult]:
        results = run_jobs(jobs, workers=self.workers, progress=self.progress, description=description)
        failed = [r for r in results if r.error]
        if failed:
            reasons = "; ".join(f"{r.name}: {r.error}" for r in failed)
            raise StageFailedError(
                f"{len(failed)} of {len(results)} jobs failed in stage {description!r}: {reasons}. The others are finished; run again to "
                "repeat only what failed."
            )
        return results


def generate_task(name: str, plan: DataPlan, folder: str) -> int:
    """Write the episodes of one task that are not there yet. Returns how many were written."""
    t = find_task(name)
    store, env, written = EpisodeStore(folder, t), None, 0
    store.check_plan(plain(plan))
    counts = plan.dm_control if t.suite == "dm_control" else plan.metaworld
    for behaviour, count in counts.items():
        for start in range(0, count, plan.shard):
            shard = f"{behaviour}-{start:05d}"
            if store.has(shard):
                store.read(shard)
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


def data_quantiles(index: pd.DataFrame) -> pd.DataFrame:
    """Per task: number of episodes, 10th, 50th and 90th percentile of their returns, and the share that ends in success."""
    rows = []
    for name, group in index.groupby("task", sort=False):
        quantiles = group["return"].quantile([0.1, 0.5, 0.9]).to_numpy()
        labels = ("data_p10", "data_p50", "data_p90")
        rows.append(
            {"task": name, "episodes": len(group), **dict(zip(labels, quantiles, strict=True)), "data_success": group["success"].mean()}
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _OneTask:
    """Slices of a single task of a multi-task sampler."""

    sampler: SliceSampler
    index: int

    def slices(self, batch: int, horizon: int, rng: np.random.Generator):
        return self.sampler.slices(batch, horizon, rng, only=self.index)


def gate_job(experiment: MultitaskExperiment, index: int) -> dict[str, float]:
    """Score of planning inside the trained model in the real task; a resumable run."""
    t, scale = experiment.tasks[index], experiment.scale
    world_model = experiment.world_model_run()
    params = {"world_model": world_model.folder.name, "task": t.name, "planner": scale.planner, "episodes": scale.planner_episodes}

    def work(run: Run) -> dict[str, float]:
        view = FrozenWorldModel(experiment.load_world_model(), index, reward_symexp=True)
        result = evaluate_planner(make(t), view, episodes=scale.planner_episodes, config=scale.planner)
        return {"planning_score": result.score, "planning_return": result.mean_return, "planning_touched": result.touched}

    return Run(experiment.runs_dir, "gate", t.name, params).execute(work)


def policy_job(experiment: MultitaskExperiment, index: int, seed: int) -> dict[str, Any]:
    """Extract and evaluate one policy from the trained model; a resumable run. Returns its line of the results."""
    t, scale = experiment.tasks[index], experiment.scale
    world_model = experiment.world_model_run()
    params = {
        "world_model": world_model.folder.name,
        "task": t.name,
        "train_seed": seed,
        "policy": scale.policy,
        "eval_episodes": scale.eval_episodes,
        "evaluate_every": scale.evaluate_every,
    }

    def work(run: Run) -> dict[str, Any]:
        device = resolve_device(experiment.device)
        view = FrozenWorldModel(
            experiment.load_world_model(), index, precision=scale.policy.precision, reward_symexp=scale.policy.reward_symexp
        )
        training, _ = experiment._split()
        margin = scale.policy.horizon if scale.policy.start_states == "slice_start" else 0
        starts = replay_starts(lambda: view, training, index, margin=margin)
        env = make(t)

        def evaluate(learner: PolicyLearner) -> dict[str, Any]:
            evaluation, episodes = evaluate_policy(env, learner.actor, view, episodes=scale.eval_episodes)
            believed, real = believed_and_real_value(learner.critics, view, episodes, obs_dim=t.obs_dim, gamma=scale.policy.gamma)
            return {**evaluation.row(), "model_value": believed, "real_value": real}

        learner = extract_policy(
            view,
            starts,
            scale.policy,
            seed=seed,
            device=device,
            run=run,
            evaluate=evaluate,
            evaluate_every=scale.evaluate_every,
            checkpoint_every=scale.checkpoint_every,
        )
        evaluated = [row for row in run.rows if "score" in row]
        last = {k: evaluated[-1][k] for k in ("score", "mean_return", "success", "touched", "model_value", "real_value")}
        best = max(row["score"] for row in evaluated)
        return {"task": t.name, "suite": t.suite, "train_seed": seed, **last, "best_score": best, "updates": learner.step}

    return Run(experiment.runs_dir, "policy", f"{t.name}-seed{seed}", params).execute(work)


def _random_job(name: str, episodes: int = 5) -> dict[str, Any]:
    env = make(find_task(name))
    played = []
    for i in range(episodes):
        act = make_behaviour("uniform_random", env, np.random.default_rng([99, i]))
        played.append(record(env, act, seed=EVALUATION_SEED + i, behaviour="uniform_random"))
    result = summarise(env, played)
    return {"task": name, "random_score": result.score, "random_return": result.mean_return}
