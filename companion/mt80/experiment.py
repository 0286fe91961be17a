"""A multi-task experiment's runs: what they depend on, where they lie, and what is read from them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from companion.running.jobs import Engine
from companion.running.runs import Run, digest, resolve_device
from pwmlib.baselines.tdmpc2 import TDMPC2Config, TDMPC2Trainer, task_discount
from pwmlib.data import EpisodeStore, SliceSampler
from pwmlib.data.sampler import padded_sizes
from pwmlib.data.store import COLLECTED
from pwmlib.errors import ExplainedError
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel
from pwmlib.optimizer.online_episodes import replay_starts
from pwmlib.optimizer.pwm import PWMConfig, StartStates
from pwmlib.settings import Count, settings
from pwmlib.tasks import Task

from .published_model import PublishedModel
from .scales import AgentsPlan, CollectionPlan, MultitaskScale, joint_training
from .shipped_model import Artefacts

HELD_OUT = 0.05
"""Fraction of each task's episodes that the world model never trains on (at least one), for the reward correlation."""


class StageFailedError(ExplainedError):
    """A stage that cannot be done from what is there."""


@settings
class ExperimentRuns:
    """An experiment's tasks, scale and folders, and where each of its results lies."""

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
    """Begin with this world model and its start states instead of training one. Rounds of agents may follow; they need the episodes."""
    published: PublishedModel | None = None
    """Take this checkpoint for the world model; the episodes give start states and the model's fit."""
    stacked: bool | None = None
    """Extract policies together on one device (`pwmlib.optimizer.stacked`) instead of one a process; None does so on a GPU."""
    chunks: tuple[Path, ...] = ()
    """Published chunks to import instead of generating episodes."""
    round: int | None = None
    """Which world model is meant: the one before any collection is 0; None is the last."""

    @property
    def folder(self) -> Path:
        """The folder that the table goes to."""
        identity = {"world_model": self.world_model_name(), "scale": self.scale, "train_seeds": self.train_seeds}
        return self.runs_dir / f"multitask-{digest(identity)}"

    def world_model_run(self) -> Run:
        """The run of the world model; its parameters include a fingerprint of the data."""
        return self._history()[1]

    def world_model_name(self) -> str:
        """Identifies the world model that gates and policies belong to."""
        if self.published:
            return f"published-{self.published.fingerprint}"
        return self._history()[0]

    def model_index(self, index: int) -> int:
        """The world model's number of one of the experiment's tasks."""
        foreign = self.shipped or self.published
        return foreign.index(self.tasks[index]) if foreign else index

    def store(self, t: Task) -> EpisodeStore:
        """The episodes of one task that this round's world model learns from."""
        return EpisodeStore(self.data_dir, t, collected=self._history()[2])

    def fingerprints(self, collected: Sequence[str] | None = None) -> dict[str, str]:
        """Of the episodes that this round's world model learns from, or of those with other collected shards, by task."""
        shards = self._history()[2] if collected is None else collected
        return {t.name: EpisodeStore(self.data_dir, t, collected=shards).fingerprint() for t in self.tasks}

    def collection_run(self, index: int) -> Run:
        """Name the run of `collection_job`."""
        params = self._collection_params(self._round + 1, self.world_model_name())
        return Run(self.runs_dir, "collection", f"{self.tasks[index].name}-{self._round + 1}", params)

    def collected_shard(self) -> str:
        """Name of the shards of episodes that policies collect in this round's world model."""
        return self._collected_shard(self._round + 1, self.world_model_name())

    def gate_run(self, index: int) -> Run:
        """Name the run of `gate_job`."""
        t, scale = self.tasks[index], self.scale
        params = {"world_model": self.world_model_name(), "task": t.name, "planner": scale.planner, "episodes": scale.planner_episodes}
        return Run(self.runs_dir, "gate", t.name, params)

    def policy_run(self, index: int, seed: int) -> Run:
        """Name the run of `policy_job`."""
        t, scale = self.tasks[index], self.scale
        params = {"world_model": self.world_model_name(), "task": t.name, "train_seed": seed, "policy": scale.policy}
        params |= {"eval_episodes": scale.eval_episodes, "evaluate_every": scale.evaluate_every}
        if scale.anchor:
            params |= {"anchor": scale.anchor, "shown": self.store(t).fingerprint()}
        return Run(self.runs_dir, "policy", f"{t.name}-seed{seed}", params)

    def replay(self, only: int | None = None) -> SliceSampler | Artefacts:
        """What draws replay states by the world model's numbers of the tasks (`start_observations`); only: of the task of that index."""
        return self.shipped if self.as_shipped else self._split(only)[0]

    def starts(self, index: int, view: FrozenWorldModel) -> StartStates:
        """Start states of imagined rollouts of one task: encoded replay states."""
        return replay_starts(lambda: view, self.replay(index), self.model_index(index), margin=self.scale.policy.start_margin)

    def view(self, index: int, policy: PWMConfig | None = None) -> FrozenWorldModel:
        """The world model, frozen, as one of the tasks; with the rewards and the precision that a policy's settings ask for."""
        how = {"precision": policy.precision, "reward_symexp": policy.reward_symexp} if policy else {}
        return FrozenWorldModel(self.load_world_model(), self.model_index(index), **how)

    def load_world_model(self) -> WorldModel:
        """Load the trained world model."""
        if self.as_shipped:
            return self.shipped.world_model().to(resolve_device(self.device))
        if self.published:
            return self.published.world_model.to(resolve_device(self.device))
        state = self.world_model_run().load_checkpoint()
        if state is None:
            raise StageFailedError(f"{self.world_model_run().folder}: no trained world model; run train_world_model() first")
        model = self.shipped.world_model() if self.shipped else self._new_model()
        model.load_state_dict(state["model"])
        return model.to(resolve_device(self.device))

    @property
    def as_shipped(self) -> bool:
        """Whether this round's world model is the shipped one as it is."""
        return self.shipped is not None and not self._round

    def plan(self, number: int) -> CollectionPlan | AgentsPlan:
        """How the data of the world model of round 1, 2, ... were collected in the one before."""
        return self._plans[number - 1]

    @property
    def _plans(self) -> tuple[CollectionPlan | AgentsPlan, ...]:
        """Those of all rounds; a shipped world model has those of `CollectionPlan` behind it."""
        first, then = (None if self.shipped else self.scale.collection), self.scale.agents
        return (first,) * (first.rounds if first else 0) + (then,) * (then.rounds if then else 0)

    @property
    def _round(self) -> int:
        return len(self._plans) if self.round is None else self.round

    def _before(self) -> Self | None:
        """This experiment with the world model of the round before."""
        return dataclasses.replace(self, round=self._round - 1) if self._round else None

    def _history(self) -> tuple[str, Run | None, tuple[str, ...]]:
        """Name and run (None: shipped) of this round's world model, and the collected shards that it learns from; all follow from the
        rounds before."""
        names, scale = [t.name for t in self.tasks], self.scale
        run, collected = None, ()
        name = f"shipped-{self.shipped.fingerprint}" if self.shipped else ""
        for number in range(self._round + 1):
            if number or not self.shipped:
                data = self.fingerprints(collected)
                params = {"tasks": names, "data": data, "model": scale.model, "training": scale.training, "seed": scale.model_seed}
                if scale.pretraining == "tdmpc2":
                    params["tdmpc2"] = joint_training(scale.training, scale.tdmpc2)
                if number:
                    params |= {"continues": name, "training": self.plan(number).training}
                run = Run(self.runs_dir, "world_model", f"{len(names)}-tasks", params)
                name = run.folder.name
            if number < self._round:
                collected = (*collected, self._collected_shard(number + 1, name))
        return name, run, collected

    def _collection_params(self, number: int, world_model: str) -> dict[str, Any]:
        plan = self.plan(number)
        how = {"agent": plan.agent} if isinstance(plan, AgentsPlan) else {"episodes": plan.episodes}
        return {"world_model": world_model, "policy": plan.policy, "stages": plan.stages, **how}

    def _collected_shard(self, number: int, world_model: str) -> str:
        return f"{COLLECTED}{number:02d}-{digest(self._collection_params(number, world_model))}"

    def _for_job(self) -> Self:
        return dataclasses.replace(self, progress=False, workers=1)

    def tdmpc2_trainer(self, model: WorldModel, training: SliceSampler, config: TDMPC2Config) -> TDMPC2Trainer:
        """What trains a world model, Q-functions and a prior jointly."""
        discounts = torch.tensor([task_discount(t.decisions) for t in self.tasks])
        return TDMPC2Trainer(model, training, discounts, config, seed=self.scale.model_seed)

    def _new_model(self) -> WorldModel:
        obs_dim, action_dim = padded_sizes(self.tasks)
        dims = [t.action_dim for t in self.tasks]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.scale.model_seed)
            return WorldModel(obs_dim, action_dim, tasks=len(self.tasks), action_dims=dims, config=self.scale.model)

    def _split(self, only: int | None = None) -> tuple[SliceSampler, SliceSampler]:
        """Training and held-out episodes, by the world model's numbers of the tasks. only: the index of the one task whose episodes are
        needed; the others have none then."""
        tasks, collected = (self.shipped or self.published or self).tasks, self._history()[2]
        training, held_out = [[] for _ in tasks], [[] for _ in tasks]
        for i, t in enumerate(self.tasks):
            if only not in (None, i):
                continue
            shards, number = EpisodeStore(self.data_dir, t, collected=collected).arrays(), self.model_index(i)
            # The last episodes of each shard, so that every behaviour is held out in proportion.
            cut = [len(a) - min(max(1, round(len(a) * HELD_OUT)), len(a) - 1) for a in shards]
            training[number] = [a[:n] for a, n in zip(shards, cut, strict=True)]
            held_out[number] = [a[n:] for a, n in zip(shards, cut, strict=True) if len(a) > n]
            if not held_out[number]:
                raise StageFailedError(
                    f"{self.data_dir}/{t.name}: every shard holds one episode; the gate needs some that are not trained on"
                )
        return SliceSampler(tasks, training), SliceSampler(tasks, held_out)
