"""Sec. 4.2 as stages of resumable runs: episodes, one world model, its gate, one policy per task and seed, the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from companion.reporting.published import published_scores
from companion.running.job import Job
from companion.running.jobs import values_of
from companion.running.runs import Run, resolve_device, train
from companion.running.sweep import note_plan
from pwmlib.baselines.tdmpc2 import TDMPC2Trainer, task_discount
from pwmlib.data import EpisodeStore, SliceSampler
from pwmlib.data.checkpoints import write_atomic
from pwmlib.data.published_chunks import import_chunks, task_set
from pwmlib.evaluation.predictions import held_out_fit
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer
from pwmlib.model.world_model import WorldModel
from pwmlib.settings import settings

from .cost import cost_line
from .episodes import behaviour_quantiles, data_quantiles, generation_job, generation_run
from .experiment import ExperimentRuns, StageFailedError
from .jobs import collection_job, gate_job, imitation_job, policy_job, random_job, shipped_policy_job, stacked_job, trained_policy
from .pictures import Watched, watch
from .scales import joint_training

__all__ = ["MultitaskExperiment"]

STACK = 80
"""Policies that are extracted together."""


@settings
class MultitaskExperiment(ExperimentRuns):
    """One experiment. Every method does only what is missing."""

    def cost(self) -> str:
        """What is about to be run, and about how long that takes on this number of processes, from the recorded costs."""
        return cost_line(self)

    def data(self) -> pd.DataFrame:
        """The quality of the data, one line a task; generates what is missing, or reads the shipped table."""
        if self.shipped and not self.scale.anchor:
            table = self.shipped.table("data").set_index("task", drop=False)
            return table.loc[[t.name for t in self.tasks]].reset_index(drop=True)
        return data_quantiles(self.generate())

    def data_by_behaviour(self) -> pd.DataFrame:
        """The same by suite and behaviour, over all tasks of the data."""
        return self.shipped.table("behaviours") if self.shipped and not self.scale.anchor else behaviour_quantiles(self.generate())

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
        if self.as_shipped:
            table = self.shipped.table("quality").set_index("task")
            return {"quality": {t.name: table.loc[t.name].to_dict() for t in self.tasks}}
        if self.published:
            return {"quality": self._published_fit()}
        before = self._before()
        if before:
            if before.as_shipped:
                self.generate()
            before.train_world_model()
            before.collect()
        run, config = self.world_model_run(), self.plan(self._round).training if before else self.scale.training
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
            return {"quality": self._fit(model, held_out), **run.rows[-1]}

        return run.execute(work)

    def _fit(self, model: WorldModel, held_out: SliceSampler) -> dict[str, dict[str, float]]:
        """How the model's rewards follow those of each task's held-out episodes."""
        one = {t.name: _OneTask(held_out, self.model_index(i)) for i, t in enumerate(self.tasks)}
        return {name: held_out_fit(model, slices, horizon=self.scale.training.horizon) for name, slices in one.items()}

    def _published_fit(self) -> dict[str, dict[str, float]]:
        """The same of the published model, whose episodes are made first if need be."""
        self.generate()
        data = {t.name: self.store(t).fingerprint() for t in self.tasks}
        params = {"world_model": self.world_model_name(), "data": data, "horizon": self.scale.training.horizon}
        run = Run(self.runs_dir, "published_fit", f"{len(self.tasks)}-tasks", params)
        return run.execute(lambda run: self._fit(self.load_world_model(), self._split()[1]))

    def collect(self) -> pd.DataFrame:
        """Episodes of policies that learn in this round's world model, for the next. One line per task and stage of the extraction."""
        runs = [self.collection_run(i) for i in range(len(self.tasks))]
        note_plan(self.runs_dir, f"collection {self._round + 1}", runs)
        jobs = [Job(t.name, collection_job, {"experiment": self._for_job(), "index": i}) for i, t in enumerate(self.tasks)]
        done = self._run(jobs, f"episodes of policies, round {self._round + 1}")
        return pd.DataFrame([row for rows in done for row in rows])

    def collections(self) -> pd.DataFrame:
        """What the policies of all rounds got while they collected; empty without rounds. One line per task, round and stage."""
        before = self._before()
        return pd.concat([before.collections(), before.collect()], ignore_index=True) if before else pd.DataFrame()

    def check_world_model(self) -> pd.DataFrame:
        """The gate: held-out reward correlation, and the score of a planner that sees only the model. One line per task."""
        quality = self.train_world_model()["quality"]
        note_plan(self.runs_dir, "planning", [self.gate_run(i) for i in range(len(self.tasks))])
        jobs = [Job(t.name, gate_job, {"experiment": self._for_job(), "index": i}) for i, t in enumerate(self.tasks)]
        planned = self._run(jobs, "planning in the model")
        return pd.DataFrame([{"task": t.name, **quality[t.name], **score} for t, score in zip(self.tasks, planned, strict=True)])

    def evaluate_shipped(self) -> pd.DataFrame:
        """The shipped policies of these tasks, evaluated again in the real tasks; empty where none came with the world model."""
        if not self.as_shipped or not self.shipped.policies():
            return pd.DataFrame()
        jobs = [Job(t.name, shipped_policy_job, {"experiment": self._for_job(), "index": i}) for i, t in enumerate(self.tasks)]
        return pd.DataFrame([line for lines in self._run(jobs, "shipped policies") for line in lines])

    def extract_policies(self, only: Sequence[int] | None = None) -> pd.DataFrame:
        """One policy per task and training seed (Algorithm 1), evaluated in the real task. One line per policy.

        only: indices of the tasks that get policies; by default all.
        """
        self.train_world_model()
        if self.scale.anchor and self.as_shipped:
            self.generate()
        each = [(i, seed) for i in (range(len(self.tasks)) if only is None else only) for seed in range(self.train_seeds)]
        note_plan(self.runs_dir, "policies", [self.policy_run(i, seed) for i, seed in each])
        if self._together:
            return pd.DataFrame([row for part in _parts(each, STACK) for row in stacked_job(self._for_job(), part)])
        jobs = [
            Job(f"{self.tasks[i].name} seed {seed}", policy_job, {"experiment": self._for_job(), "index": i, "seed": seed})
            for i, seed in each
        ]
        return pd.DataFrame(self._run(jobs, "policies"))

    def imitate(self) -> pd.DataFrame:
        """Evaluate the imitations that anchored policies begin as. One line per policy.

        Raises:
            StageFailedError: the scale has no anchor.
        """
        if not self.scale.anchor:
            raise StageFailedError("imitate: the scale has no anchor; expected an Anchor, such as policies='anchored' gives it")
        self.generate()
        each = [(i, seed) for i in range(len(self.tasks)) for seed in range(self.train_seeds)]
        jobs = [
            Job(f"{self.tasks[i].name} seed {seed}", imitation_job, {"experiment": self._for_job(), "index": i, "seed": seed})
            for i, seed in each
        ]
        return pd.DataFrame(self._run(jobs, "imitations"))

    @property
    def _together(self) -> bool:
        """Whether policies are extracted together."""
        return not self.scale.anchor and (self.stacked or (self.stacked is None and resolve_device(self.device).type == "cuda"))

    def watch(self, index: int, seed: int = 0) -> Watched:
        """Film a task's policy in the real task, once `extract_policies` has extracted those of all tasks.

        Raises:
            RendererMissingError: MuJoCo finds nothing to render with.
        """
        parts = _parts([(i, s) for i in range(len(self.tasks)) for s in range(self.train_seeds)], STACK)
        stack = next(part for part in parts if (index, seed) in part) if self._together else None
        actor = trained_policy(self, index, seed, stack)
        return watch(self.tasks[index], 0, actor, FrozenWorldModel(self.load_world_model(), self.model_index(index)))

    def results(self) -> pd.DataFrame:
        """The table of the experiment: each policy's score beside random behaviour, the data, planning, and the model's belief."""
        data = self.data()
        gate = self.check_world_model()
        policies = self.extract_policies()
        baselines = pd.DataFrame(self._run([Job(t.name, random_job, {"name": t.name}) for t in self.tasks], "random"))
        table = policies.merge(baselines, on="task").merge(data, on="task").merge(gate, on="task")
        if self.published:
            scores = published_scores(f"mt{len(self.published.tasks)}")["PWM, published"]
            table["published_score"] = table["task"].map(scores)
        write_atomic(self.folder / "results.csv", table.to_csv(index=False))
        return table

    def _import(self) -> None:
        """Bring the published chunks' episodes of these tasks into the store."""
        order = task_set(self.chunks[0])
        absent = [t.name for t in self.tasks if t not in order]
        if absent:
            raise StageFailedError(f"{self.chunks[0].parent}: chunks of MT{len(order)}, which {', '.join(absent)} are not in")
        import_chunks(self.chunks, self.data_dir, order, only=self.tasks, progress=self.progress)

    def _run(self, jobs: Sequence[Job], description: str) -> list[Any]:
        how = {"workers": self.workers, "progress": self.progress, "engine": self.engine}
        return values_of(jobs, description=description, gpus="even" if resolve_device(self.device).type == "cuda" else 0.0, **how)


def _parts(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


@dataclass(frozen=True)
class _OneTask:
    """Slices of a single task of a multi-task sampler."""

    sampler: SliceSampler
    index: int

    def slices(self, batch: int, horizon: int, rng: np.random.Generator):
        return self.sampler.slices(batch, horizon, rng, only=self.index)
