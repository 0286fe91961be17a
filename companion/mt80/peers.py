"""What PWM's policies are compared with on the same episodes: TD-MPC2 (Fig. 6), one policy for all tasks (Fig. 18), a world model of a
short horizon (Fig. 14)."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.running.jobs import Job
from companion.running.runs import Run, resolve_device, train
from companion.running.sweep import note_plan
from pwmlib.baselines.tdmpc2 import TDMPC2Trainer, task_discount
from pwmlib.baselines.tdmpc2_planner import PlanSearch
from pwmlib.data.store import record
from pwmlib.evaluation.scores import EVALUATION_SEED, evaluate_policy, summarise
from pwmlib.model.frozen import FrozenMultiTaskModel, FrozenWorldModel
from pwmlib.optimizer.online_episodes import policy_actor
from pwmlib.optimizer.pwm import PWM
from pwmlib.tasks import make

from .jobs import judged
from .stages import MultitaskExperiment

Comparison = Literal["tdmpc2", "one_policy", "horizon"]
COLUMNS = ["task", "suite", "method", "train_seed", "score"]


@dataclass(frozen=True)
class MultitaskPeers:
    """Comparisons that belong to an experiment. Every method does only what is missing.

    tasks: indices of the experiment's tasks whose policies are compared; the models are trained on all of them.
    """

    experiment: MultitaskExperiment
    tasks: tuple[int, ...]

    def tdmpc2(self) -> pd.DataFrame:
        """TD-MPC2 on the experiment's episodes, with planning and with the prior alone. One line per task."""
        e = self.experiment
        train_tdmpc2(e)
        return pd.DataFrame(e.for_each(tdmpc2_job, [(i,) for i in self.tasks], "TD-MPC2", partial(tdmpc2_evaluation_run, e)))

    def one_policy(self) -> pd.DataFrame:
        """One PWM policy of all tasks for each training seed, from the experiment's world model. One line per task and seed."""
        e, seeds = self.experiment, range(self.experiment.train_seeds)
        e.train_world_model()
        note_plan(e.runs_dir, "one policy", [self.one_policy_run(seed) for seed in seeds])
        peers = replace(self, experiment=e._for_job())
        jobs = [Job(f"one policy of all tasks, seed {seed}", one_policy_job, {"peers": peers, "seed": seed}) for seed in seeds]
        return pd.DataFrame(chain.from_iterable(e._run(jobs, "one policy of all tasks")))

    def table(self, comparison: Comparison) -> pd.DataFrame:
        """A comparison as columns task, method, train_seed, score: the experiment's own policies beside the others."""
        e = self.experiment
        if comparison == "horizon":
            parts = [self._trained_over(horizon) for horizon in (3, 16)]
        else:
            parts = [e.extract_policies(self.tasks).assign(method="PWM, a policy a task")]
        if comparison == "one_policy":
            parts.append(self.one_policy().assign(method="PWM, one policy for all tasks"))
        elif comparison == "tdmpc2":
            scores = self.tdmpc2().assign(train_seed=e.scale.model_seed)
            for column, method in (("planning_score", "TD-MPC2, planning"), ("prior_score", "TD-MPC2, prior only")):
                parts.append(scores.assign(method=method, score=scores[column]))
        return pd.concat([part[COLUMNS] for part in parts], ignore_index=True)

    def _trained_over(self, horizon: int) -> pd.DataFrame:
        """Policies from a world model that was trained over this horizon on the episodes before any collection. One line per policy."""
        e = self.experiment
        scale = replace(e.scale, training=replace(e.scale.training, horizon=horizon), collection=None, agents=None)
        return replace(e, scale=scale, round=None).extract_policies(self.tasks).assign(method=f"world model of H = {horizon}")

    def one_policy_run(self, seed: int) -> Run:
        """Name the run of `one_policy_job`."""
        e = self.experiment
        params = {"world_model": e.world_model_name(), "policy": e.scale.one_policy, "seed": seed, "eval_episodes": e.scale.eval_episodes}
        return Run(e.runs_dir, "one_policy", f"seed{seed}", params | {"tasks": [e.tasks[i].name for i in self.tasks]})


def tdmpc2_run(e: MultitaskExperiment) -> Run:
    """Name the run of TD-MPC2's training."""
    params = {"tasks": [t.name for t in e.tasks], "data": e.fingerprints(), "model": e.scale.model, "tdmpc2": e.scale.tdmpc2}
    params |= {"standardise_obs": e.scale.training.standardise_obs, "seed": e.scale.model_seed}
    return Run(e.runs_dir, "tdmpc2", f"{len(e.tasks)}-tasks", params)


def train_tdmpc2(e: MultitaskExperiment) -> dict[str, Any]:
    """TD-MPC2 of all tasks; returns its last losses."""
    c = e.scale.tdmpc2

    def work(run: Run) -> dict[str, Any]:
        every = {"checkpoint_every": e.scale.checkpoint_every, "log_every": max(1, c.updates // 100)}
        train(run, untrained_tdmpc2(e), c.updates, **every)
        return run.rows[-1]

    return tdmpc2_run(e).execute(work)


def tdmpc2_evaluation_run(e: MultitaskExperiment, index: int) -> Run:
    """Name the run of `tdmpc2_job`."""
    scale, t = e.scale, e.tasks[index]
    params = {"agent": tdmpc2_run(e).folder.name, "task": t.name, "planner": scale.tdmpc2_planner}
    episodes = {"planner_episodes": scale.planner_episodes, "eval_episodes": scale.eval_episodes}
    return Run(e.runs_dir, "tdmpc2_evaluation", t.name, params | episodes)


def untrained_tdmpc2(e: MultitaskExperiment) -> TDMPC2Trainer:
    """An untrained agent (world model, Q-functions and prior) on the experiment's training episodes."""
    training, _ = e._split()
    model = e._new_model().to(resolve_device(e.device))
    if e.scale.training.standardise_obs:
        mean, std, *_ = training.statistics()
        model.set_statistics(mean, std)
    return e.tdmpc2_trainer(model, training, e.scale.tdmpc2)


def tdmpc2_job(experiment: MultitaskExperiment, index: int) -> dict[str, Any]:
    """Scores of TD-MPC2 in one real task, with planning (None where the scale has no planner_episodes) and with the prior alone; a
    resumable run."""
    t, scale = experiment.tasks[index], experiment.scale

    def work(run: Run) -> dict[str, Any]:
        trainer, envs = untrained_tdmpc2(experiment), [make(t) for _ in range(scale.eval_episodes)]
        trainer.load_state_dict(tdmpc2_run(experiment).load_checkpoint())
        agent = trainer.agent
        view = FrozenWorldModel(agent.model, index)
        prior, _ = evaluate_policy(envs, lambda z, noise: agent.policy(z, view.task)[0], view)
        planned = []
        for i in range(scale.planner_episodes):
            search = PlanSearch(agent, index, 1, task_discount(t.decisions), scale.tdmpc2_planner, seed=i)
            act = policy_actor(lambda z, noise, search=search: search(z[None])[0][0], view, envs[0])
            planned.append(record(envs[0], act, seed=EVALUATION_SEED + i, behaviour="tdmpc2"))
        line = {"task": t.name, "suite": t.suite, "planning_score": None, "planning_return": None}
        if planned:
            planning = summarise(envs[0], planned)
            line |= {"planning_score": planning.score, "planning_return": planning.mean_return}
        return {**line, "prior_score": prior.score, "prior_return": prior.mean_return}

    return tdmpc2_evaluation_run(experiment, index).execute(work)


def one_policy_job(peers: MultitaskPeers, seed: int) -> list[dict[str, Any]]:
    """One policy of all tasks, evaluated in each; a resumable run. Returns a line per task."""
    e = peers.experiment

    def work(run: Run) -> list[dict[str, Any]]:
        device, c = resolve_device(e.device), e.scale.one_policy
        dynamics = FrozenMultiTaskModel(e.load_world_model(), reward_symexp=c.reward_symexp)
        learner = PWM(dynamics, peers_starts(peers, dynamics), c, seed=seed, device=device)
        train(run, learner, c.updates, checkpoint_every=e.scale.checkpoint_every)
        lines = []
        for i in peers.tasks:
            t, view = e.tasks[i], TaskOfMany(dynamics, e.model_index(i))
            envs = [make(t) for _ in range(e.scale.eval_episodes)]
            head = {"task": t.name, "suite": t.suite, "train_seed": seed}
            lines.append(head | judged(envs, learner.actor, learner.critics, view, c.gamma))
        return lines

    return peers.one_policy_run(seed).execute(work)


def peers_starts(peers: MultitaskPeers, dynamics: FrozenMultiTaskModel):
    """Start states of imagined rollouts: replay states of random tasks, [z | e | mask]."""
    e, replay = peers.experiment, peers.experiment.replay()

    def draw(batch: int, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        rng = np.random.default_rng(seed)
        chosen = rng.choice(peers.tasks, size=batch)
        obs, numbers = torch.zeros(batch, dynamics.model.obs_dim), torch.zeros(batch, dtype=torch.long)
        for i in np.unique(chosen):
            at = np.flatnonzero(chosen == i)
            numbers[at] = number = e.model_index(int(i))
            obs[at] = replay.start_observations(number, len(at), rng)
        device = dynamics.model.obs_mean.device
        return dynamics.encode(obs.to(device), numbers.to(device))

    return draw


class TaskOfMany:
    """One task of a `FrozenMultiTaskModel`, as evaluation asks for a model: observations [..., obs_dim] to states [z | e | mask]."""

    def __init__(self, dynamics: FrozenMultiTaskModel, task: int):
        self.model, self.obs_dim, self.reward_symexp = dynamics.model, dynamics.model.obs_dim, dynamics.reward_symexp
        self._dynamics, self._task = dynamics, task

    def encode(self, obs: Tensor) -> Tensor:
        return self._dynamics.encode(obs, torch.full(obs.shape[:-1], self._task, device=obs.device))
