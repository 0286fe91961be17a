"""Sec. 4.2 as stages of resumable runs: episodes, one world model, its gate, one policy per task and seed, the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from companion.running.job import Job, JobResult
from companion.running.jobs import Engine, run_jobs
from companion.running.runs import Run, digest, resolve_device, train
from companion.running.sweep import note_plan
from pwmlib.baselines.tdmpc2 import TDMPC2Trainer, task_discount
from pwmlib.data import EpisodeStore, SliceSampler
from pwmlib.data.checkpoints import write_atomic
from pwmlib.data.published_chunks import import_chunks, task_set
from pwmlib.data.sampler import padded_sizes
from pwmlib.data.store import COLLECTED
from pwmlib.errors import ExplainedError
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer, held_out_fit
from pwmlib.model.world_model import WorldModel
from pwmlib.optimizer.evaluation import replay_starts
from pwmlib.optimizer.pwm import StartStates
from pwmlib.settings import Count, settings
from pwmlib.tasks import Task

from .cost import cost_line
from .episodes import behaviour_quantiles, data_quantiles, generation_job, generation_run
from .jobs import collection_job, gate_job, policy_job, random_job, shipped_policy_job, stacked_job
from .scales import MultitaskScale, joint_training
from .shipped_model import Artefacts

__all__ = ["MultitaskExperiment", "StageFailedError"]

HELD_OUT = 0.05
"""Fraction of each task's episodes that the world model never trains on (at least one), for the reward correlation."""

STACK = 80
"""Policies that are extracted together."""


class StageFailedError(ExplainedError):
    """Jobs of a stage failed; the message names each with its reason. The others are finished and will not run again."""


@settings
class MultitaskExperiment:
    """One experiment: its tasks, scale and folders. Every method does only what is missing."""

    tasks: tuple[Task, ...]
    scale: MultitaskScale
    train_seeds: Count
    runs_dir: Path
    data_dir: Path
    device: str = "auto"
    workers: Count = 2
    progress: bool = True
    engine: Engine = "local"
    """Where jobs run: processes here, or Ray."""
    shipped: Artefacts | None = None
    """Start from this world model and its start states instead of generating data and training."""
    stacked: bool | None = None
    """Extract policies together on one device (`pwmlib.optimizer.stacked`) instead of one a process; None does so on a GPU."""
    chunks: tuple[Path, ...] = ()
    """Published chunks to import instead of generating episodes."""
    round: int | None = None
    """Which world model is meant: the one before any collection is 0; None is the last."""

    def cost(self) -> str:
        """What is about to be run, and about how long that takes on this number of processes, from the recorded costs."""
        return cost_line(self)

    def data(self) -> pd.DataFrame:
        """The quality of the data, one line a task; generates what is missing, or reads the shipped table."""
        if self.shipped:
            table = self.shipped.table("data").set_index("task", drop=False)
            return table.loc[[t.name for t in self.tasks]].reset_index(drop=True)
        return data_quantiles(self.generate())

    def data_by_behaviour(self) -> pd.DataFrame:
        """The same by suite and behaviour, over all tasks of the data."""
        return self.shipped.table("behaviours") if self.shipped else behaviour_quantiles(self.generate())

    def generate(self) -> pd.DataFrame:
        """Episodes of all tasks, in parallel over tasks. Returns their index."""
        if self.chunks:
            self._import()
            return pd.concat([EpisodeStore(self.data_dir, t).index() for t in self.tasks], ignore_index=True)
        folders = {"folder": str(self.data_dir), "runs_dir": str(self.runs_dir)}
        each = [{"name": t.name, "plan": self.scale.data, **folders} for t in self.tasks]
        note_plan(self.runs_dir, "episodes", [generation_run(**arguments) for arguments in each])
        self._run([Job(arguments["name"], generation_job, arguments) for arguments in each], "episodes")
        return pd.concat([EpisodeStore(self.data_dir, t).index() for t in self.tasks], ignore_index=True)

    def train_world_model(self) -> dict[str, Any]:
        """The world model of all tasks (Eq. 10). Returns its last losses and held-out fit of rewards."""
        if self.shipped:
            table = self.shipped.table("quality").set_index("task")
            return {"quality": {t.name: table.loc[t.name].to_dict() for t in self.tasks}}
        before = self._before()
        if before:
            before.train_world_model()
            before.collect()
        run, config = self.world_model_run(), self.scale.collection.training if before else self.scale.training
        training, held_out = self._split()
        note_plan(self.runs_dir, "world_model", [run])

        def work(run: Run) -> dict[str, Any]:
            device = resolve_device(self.device)
            model = (before.load_world_model() if before else self._new_model()).to(device)
            small = sum(p.numel() for p in model.parameters()) < 2_000_000
            torch.set_num_threads(1 if small else max(1, self.workers))  # threads cost a small model more than they give
            if not before and (config.standardise_obs or config.loss.normalise_reward):
                model.set_statistics(*config.standardisation(*training.statistics()))
            name = f"world model, round {self._round}" if before else "world model"
            with tqdm(total=config.updates, desc=name, disable=not self.progress) as bar:
                seed, every = self.scale.model_seed, self.scale.checkpoint_every
                how = {"checkpoint_every": every, "log_every": max(1, config.updates // 100)}
                learner = WorldModelTrainer(model, training, config, seed=seed)
                if self.scale.pretraining == "tdmpc2":
                    discounts = torch.tensor([task_discount(t.decisions) for t in self.tasks])
                    learner = TDMPC2Trainer(model, training, discounts, joint_training(config, self.scale.tdmpc2), seed=seed)
                train(run, learner, config.updates, progress=lambda step: bar.update(step - bar.n), **how)
            quality = {}
            for i, t in enumerate(self.tasks):
                quality[t.name] = held_out_fit(model, _OneTask(held_out, i), horizon=config.horizon)
            return {"quality": quality, **run.rows[-1]}

        return run.execute(work)

    def collect(self) -> pd.DataFrame:
        """Episodes of policies that learn in this round's world model, for the next. One line per task and stage of the extraction."""
        runs = [self.collection_run(i) for i in range(len(self.tasks))]
        note_plan(self.runs_dir, f"collection {self._round + 1}", runs)
        jobs = [Job(t.name, collection_job, {"experiment": self._for_job(), "index": i}) for i, t in enumerate(self.tasks)]
        done = self._run(jobs, f"episodes of policies, round {self._round + 1}")
        return pd.DataFrame([row for result in done for row in result.value])

    def collections(self) -> pd.DataFrame:
        """What the policies of all rounds got while they collected; empty without rounds. One line per task, round and stage."""
        before = self._before()
        return pd.concat([before.collections(), before.collect()], ignore_index=True) if before and not self.shipped else pd.DataFrame()

    def check_world_model(self) -> pd.DataFrame:
        """The gate: held-out reward correlation, and the score of a planner that sees only the model. One line per task."""
        quality = self.train_world_model()["quality"]
        note_plan(self.runs_dir, "planning", [self.gate_run(i) for i in range(len(self.tasks))])
        jobs = [Job(t.name, gate_job, {"experiment": self._for_job(), "index": i}) for i, t in enumerate(self.tasks)]
        planned = self._run(jobs, "planning in the model")
        return pd.DataFrame([{"task": t.name, **quality[t.name], **result.value} for t, result in zip(self.tasks, planned, strict=True)])

    def evaluate_shipped(self) -> pd.DataFrame:
        """The shipped policies of these tasks, evaluated again in the real tasks; empty where none came with the world model."""
        if not self.shipped or not self.shipped.policies():
            return pd.DataFrame()
        jobs = [Job(t.name, shipped_policy_job, {"experiment": self._for_job(), "index": i}) for i, t in enumerate(self.tasks)]
        return pd.DataFrame([line for result in self._run(jobs, "shipped policies") for line in result.value])

    def extract_policies(self, only: Sequence[int] | None = None) -> pd.DataFrame:
        """One policy per task and training seed (Algorithm 1), evaluated in the real task. One line per policy.

        only: indices of the tasks that get policies; by default all.
        """
        self.train_world_model()
        each = [(i, seed) for i in (range(len(self.tasks)) if only is None else only) for seed in range(self.train_seeds)]
        note_plan(self.runs_dir, "policies", [self.policy_run(i, seed) for i, seed in each])
        if self.stacked or (self.stacked is None and resolve_device(self.device).type == "cuda"):
            return pd.DataFrame([row for part in _parts(each, STACK) for row in stacked_job(self._for_job(), part)])
        jobs = [
            Job(f"{self.tasks[i].name} seed {seed}", policy_job, {"experiment": self._for_job(), "index": i, "seed": seed})
            for i, seed in each
        ]
        rows = [result.value for result in self._run(jobs, "policies")]
        return pd.DataFrame(rows)

    def results(self) -> pd.DataFrame:
        """The table of the experiment: each policy's score beside random behaviour, the data, planning, and the model's belief."""
        data = self.data()
        gate = self.check_world_model()
        policies = self.extract_policies()
        baselines = pd.DataFrame(
            [result.value for result in self._run([Job(t.name, random_job, {"name": t.name}) for t in self.tasks], "random")]
        )
        table = policies.merge(baselines, on="task").merge(data, on="task").merge(gate, on="task")
        write_atomic(self.folder / "results.csv", table.to_csv(index=False))
        return table

    def _import(self) -> None:
        """Bring the published chunks' episodes of these tasks into the store."""
        order = task_set(self.chunks[0])
        absent = [t.name for t in self.tasks if t not in order]
        if absent:
            raise StageFailedError(f"{self.chunks[0].parent}: chunks of MT{len(order)}, which {', '.join(absent)} are not in")
        import_chunks(self.chunks, self.data_dir, order, only=self.tasks, progress=self.progress)

    @property
    def folder(self) -> Path:
        """Where the table goes."""
        return self.runs_dir / f"multitask-{digest(self._identity())}"

    def world_model_run(self) -> Run:
        """The run of the world model; its parameters include a fingerprint of the data."""
        return self._history()[0]

    def world_model_name(self) -> str:
        """Identifies the world model that gates and policies belong to."""
        return f"shipped-{self.shipped.fingerprint}" if self.shipped else self.world_model_run().folder.name

    def model_index(self, index: int) -> int:
        """The world model's number of one of the experiment's tasks."""
        return self.shipped.index(self.tasks[index]) if self.shipped else index

    def store(self, t: Task) -> EpisodeStore:
        """The episodes of one task that this round's world model learns from."""
        return EpisodeStore(self.data_dir, t, collected=self._history()[1])

    def collection_run(self, index: int) -> Run:
        """The run of `collection_job`."""
        return self._collection_run(self.tasks[index].name, self._round + 1, self.world_model_name())

    def collected_shard(self) -> str:
        """Name of the shards of episodes that policies collect in this round's world model."""
        return self._collected_shard(self._round + 1, self.world_model_name())

    def gate_run(self, index: int) -> Run:
        """The run of `gate_job`."""
        t, scale = self.tasks[index], self.scale
        params = {"world_model": self.world_model_name(), "task": t.name, "planner": scale.planner, "episodes": scale.planner_episodes}
        return Run(self.runs_dir, "gate", t.name, params)

    def policy_run(self, index: int, seed: int) -> Run:
        """The run of `policy_job`."""
        t, scale = self.tasks[index], self.scale
        params = {
            "world_model": self.world_model_name(),
            "task": t.name,
            "train_seed": seed,
            "policy": scale.policy,
            "eval_episodes": scale.eval_episodes,
            "evaluate_every": scale.evaluate_every,
        }
        return Run(self.runs_dir, "policy", f"{t.name}-seed{seed}", params)

    def starts(self, index: int, view: FrozenWorldModel) -> StartStates:
        """Start states of imagined rollouts of one task: encoded replay states."""
        margin = self.scale.policy.start_margin
        if not self.shipped:
            return replay_starts(lambda: view, self._split(index)[0], index, margin=margin)
        draw_observations = self.start_observations()

        def draw(batch: int, generator: torch.Generator) -> torch.Tensor:
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
            obs = draw_observations(index, batch, np.random.default_rng(seed))
            with torch.no_grad():
                return view.encode(obs.to(view.model.obs_mean.device))

        return draw

    def start_observations(self) -> Callable[[int, int, np.random.Generator], torch.Tensor]:
        """(index of a task, batch, rng) -> observations of random replay states, padded to [batch, obs_dim] of the world model."""
        if not self.shipped:
            return self._split()[0].start_observations
        artefacts, widest = self.shipped, max(t.obs_dim for t in self.shipped.tasks)
        return lambda index, batch, rng: artefacts.start_observations(self.tasks[index], widest, batch, rng)

    def load_world_model(self) -> WorldModel:
        """The trained world model."""
        if self.shipped:
            return self.shipped.world_model().to(resolve_device(self.device))
        state = self.world_model_run().load_checkpoint()
        if state is None:
            raise StageFailedError(f"{self.world_model_run().folder}: no trained world model; run train_world_model() first")
        model = self._new_model()
        model.load_state_dict(state["model"])
        return model.to(resolve_device(self.device))

    @property
    def _round(self) -> int:
        last = self.scale.collection.rounds if self.scale.collection else 0
        return last if self.round is None else self.round

    def _before(self) -> MultitaskExperiment | None:
        """This experiment with the world model of the round before."""
        return dataclasses.replace(self, round=self._round - 1) if self._round else None

    def _history(self) -> tuple[Run, tuple[str, ...]]:
        """The run of this round's world model, and the collected shards that it learns from; both follow from the rounds before."""
        names, scale = [t.name for t in self.tasks], self.scale
        run, collected = None, ()
        for number in range(self._round + 1):
            data = {t.name: EpisodeStore(self.data_dir, t, collected=collected).fingerprint() for t in self.tasks}
            params = {"tasks": names, "data": data, "model": scale.model, "training": scale.training, "seed": scale.model_seed}
            if scale.pretraining == "tdmpc2":
                params["tdmpc2"] = joint_training(scale.training, scale.tdmpc2)
            if run:
                params |= {"continues": run.folder.name, "training": scale.collection.training}
            run = Run(self.runs_dir, "world_model", f"{len(names)}-tasks", params)
            if number < self._round:
                collected = (*collected, self._collected_shard(number + 1, run.folder.name))
        return run, collected

    def _collection_run(self, name: str, number: int, world_model: str) -> Run:
        plan = self.scale.collection
        params = {"world_model": world_model, "policy": plan.policy, "episodes": plan.episodes, "stages": plan.stages}
        return Run(self.runs_dir, "collection", f"{name}-{number}", params)

    def _collected_shard(self, number: int, world_model: str) -> str:
        return f"{COLLECTED}{number:02d}-{digest(self._collection_run('', number, world_model).params)}"

    def _identity(self) -> dict[str, Any]:
        return {"world_model": self.world_model_name(), "scale": self.scale, "train_seeds": self.train_seeds}

    def _for_job(self) -> MultitaskExperiment:
        return dataclasses.replace(self, progress=False, workers=1)

    def _new_model(self) -> WorldModel:
        obs_dim, action_dim = padded_sizes(self.tasks)
        dims = [t.action_dim for t in self.tasks]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.scale.model_seed)
            return WorldModel(obs_dim, action_dim, tasks=len(self.tasks), action_dims=dims, config=self.scale.model)

    def _split(self, only: int | None = None) -> tuple[SliceSampler, SliceSampler]:
        """Training and held-out episodes. only: the index of the one task whose episodes are needed; the others have none then."""
        training, held_out, collected = [], [], self._history()[1]
        for i, t in enumerate(self.tasks):
            if only not in (None, i):
                training.append([])
                held_out.append([])
                continue
            shards = EpisodeStore(self.data_dir, t, collected=collected).arrays()
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
        how = {"workers": self.workers, "progress": self.progress, "engine": self.engine}
        results = run_jobs(jobs, description=description, gpus="even" if resolve_device(self.device).type == "cuda" else 0.0, **how)
        failed = [r for r in results if r.error]
        if failed:
            reasons = "; ".join(f"{r.name}: {r.error}" for r in failed)
            raise StageFailedError(
                f"{len(failed)} of {len(results)} jobs failed in stage {description!r}: {reasons}. The others are finished; run again to "
                "repeat only what failed."
            )
        return results


def _parts(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


@dataclass(frozen=True)
class _OneTask:
    """Slices of a single task of a multi-task sampler."""

    sampler: SliceSampler
    index: int

    def slices(self, batch: int, horizon: int, rng: np.random.Generator):
        return self.sampler.slices(batch, horizon, rng, only=self.index)
