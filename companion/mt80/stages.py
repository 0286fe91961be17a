"""Sec. 4.2 as stages of resumable runs: episodes, one world model, its gate, one policy per task and seed, the table."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from companion.reporting.published import published_scores
from companion.running.jobs import Job, values_of
from companion.running.runs import Run, resolve_device, train
from companion.running.sweep import note_plan
from pwmlib.data import EpisodeStore, SliceSampler
from pwmlib.data.checkpoints import write_atomic
from pwmlib.data.published_chunks import import_chunks, task_set
from pwmlib.evaluation.predictions import held_out_fit
from pwmlib.model.training import WorldModelTrainer
from pwmlib.model.world_model import WorldModel
from pwmlib.settings import settings
from pwmlib.tasks import Task

from .cost import cost_line
from .episodes import behaviour_quantiles, data_quantiles, generation_job, generation_run
from .experiment import ExperimentRuns, StageFailedError
from .jobs import (
    collection_job,
    gate_job,
    imitation_job,
    policy_job,
    random_job,
    shipped_policy_job,
    stacked_job,
    stacked_run,
    trained_policy,
)
from .scales import MultitaskScale, joint_training
from .shipped_model import SHIPPED, Artefacts

if TYPE_CHECKING:
    from .pictures import Watched

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
        else:
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
                how = {"checkpoint_every": self.scale.checkpoint_every, "log_every": max(1, config.updates // 100)}
                learner = WorldModelTrainer(model, training, config, seed=self.scale.model_seed)
                if self.scale.pretraining == "tdmpc2":
                    learner = self.tdmpc2_trainer(model, training, joint_training(config, self.scale.tdmpc2))
                train(run, learner, config.updates, progress=lambda step: bar.update(step - bar.n), **how)
            return {"quality": self._fit(model, held_out), **run.rows[-1]}

        return run.execute(work)

    def _fit(self, model: WorldModel, held_out: SliceSampler) -> dict[str, dict[str, float]]:
        """How the model's rewards follow those of each task's held-out episodes."""
        one = {t.name: SimpleNamespace(slices=partial(held_out.slices, only=self.model_index(i))) for i, t in enumerate(self.tasks)}
        return {name: held_out_fit(model, of_task, horizon=self.scale.training.horizon) for name, of_task in one.items()}

    def _published_fit(self) -> dict[str, dict[str, float]]:
        """The same of the published model, whose episodes are made first if need be."""
        self.generate()
        params = {"world_model": self.world_model_name(), "data": self.fingerprints(), "horizon": self.scale.training.horizon}
        run = Run(self.runs_dir, "published_fit", f"{len(self.tasks)}-tasks", params)
        return run.execute(lambda run: self._fit(self.load_world_model(), self._split()[1]))

    def collect(self) -> pd.DataFrame:
        """Episodes of policies that learn in this round's world model, for the next. One line per task and stage of the extraction."""
        done = self.for_each(collection_job, self._each_task, f"episodes of policies, round {self._round + 1}", self.collection_run)
        return pd.DataFrame(chain.from_iterable(done))

    def collections(self) -> pd.DataFrame:
        """What the policies of all rounds got while they collected; empty without rounds. One line per task, round and stage."""
        before = self._before()
        return pd.concat([before.collections(), before.collect()], ignore_index=True) if before else pd.DataFrame()

    def check_world_model(self) -> pd.DataFrame:
        """The gate: held-out reward correlation, and the score of a planner that sees only the model. One line per task."""
        quality = self.train_world_model()["quality"]
        planned = self.for_each(gate_job, self._each_task, "planning in the model", self.gate_run)
        return pd.DataFrame([{"task": t.name, **quality[t.name], **score} for t, score in zip(self.tasks, planned, strict=True)])

    def evaluate_shipped(self) -> pd.DataFrame:
        """The shipped policies of these tasks, evaluated again in the real tasks; empty where none came with the world model."""
        if not self.as_shipped or not self.shipped.policies():
            return pd.DataFrame()
        return pd.DataFrame(chain.from_iterable(self.for_each(shipped_policy_job, self._each_task, "shipped policies")))

    def extract_policies(self, only: Sequence[int] | None = None) -> pd.DataFrame:
        """One policy per task (only: of these indices) and training seed (Algorithm 1), evaluated in the real task. One line per policy."""
        self.train_world_model()
        if self.scale.anchor and self.as_shipped:
            self.generate()
        each = self.each_policy(only)
        if self._together:
            parts = _parts(each, STACK)
            note_plan(self.runs_dir, "policies", [stacked_run(self, part) for part in parts])
            return pd.DataFrame(chain.from_iterable(stacked_job(self._for_job(), part) for part in parts))
        return pd.DataFrame(self.for_each(policy_job, each, "policies", self.policy_run))

    def imitate(self) -> pd.DataFrame:
        """Evaluate the imitations that anchored policies begin as. One line per policy. Raises StageFailedError without an anchor."""
        if not self.scale.anchor:
            raise StageFailedError("imitate: the scale has no anchor; expected an Anchor, such as policies='anchored' gives it")
        self.generate()
        return pd.DataFrame(self.for_each(imitation_job, self.each_policy(), "imitations"))

    @property
    def _together(self) -> bool:
        """Whether policies are extracted together."""
        return not self.scale.anchor and (self.stacked or (self.stacked is None and resolve_device(self.device).type == "cuda"))

    def watch(self, index: int, seed: int = 0) -> "Watched":
        """Film a task's policy in the real task, once `extract_policies` has extracted those of all tasks; see `pictures.watch`."""
        from .pictures import watch  # a second of matplotlib, which no job should pay

        stack = next(part for part in _parts(self.each_policy(), STACK) if (index, seed) in part) if self._together else None
        return watch(self.tasks[index], trained_policy(self, index, seed, stack), self.view(index))

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

    def each_policy(self, only: Sequence[int] | None = None) -> list[tuple[int, int]]:
        """(index of a task, training seed) of every policy; only: indices of its task."""
        return list(product(range(len(self.tasks)) if only is None else only, range(self.train_seeds)))

    @property
    def _each_task(self) -> list[tuple[int]]:
        return [(i,) for i in range(len(self.tasks))]

    def for_each(
        self, function: Callable[..., Any], each: Sequence[tuple[int, ...]], description: str, run: Callable[..., Run] | None = None
    ) -> list[Any]:
        """What a job returns for each (index of a task,) or (index of a task, training seed); run: its run, for a sweep's status."""
        if run:
            note_plan(self.runs_dir, description, [run(*one) for one in each])
        jobs, here = [], self._for_job()
        for one in each:
            name = " seed ".join([self.tasks[one[0]].name, *map(str, one[1:])])
            jobs.append(Job(name, function, {"experiment": here, **dict(zip(("index", "seed"), one, strict=False))}))
        return self._run(jobs, description)

    def _run(self, jobs: Sequence[Job], description: str) -> list[Any]:
        how = {"workers": self.workers, "progress": self.progress, "engine": self.engine}
        return values_of(jobs, description=description, gpus="even" if resolve_device(self.device).type == "cuda" else 0.0, **how)


def with_shipped_model(
    tasks: Sequence[Task], scale: MultitaskScale, train_seeds: int, runs_dir: Path, *, workers: int = 1
) -> MultitaskExperiment:
    """The experiment of these tasks that begins with the shipped world model, on the CPU; its episodes lie beside its runs."""
    folders = {"runs_dir": runs_dir, "data_dir": runs_dir / "episodes"}
    return MultitaskExperiment(tuple(tasks), scale, train_seeds, **folders, device="cpu", workers=workers, shipped=Artefacts(SHIPPED))


def _parts(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]
