"""Online fine-tuning (App. C.4): policies act in the real task and learn, each with its own copy of the multi-task world model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from companion.running.job import Job
from companion.running.runs import Run, resolve_device
from companion.running.sweep import note_plan
from pwmlib.evaluation.scores import believed_and_real_value, evaluate_policy
from pwmlib.optimizer.online_episodes import OnlineAgent, OnlineConfig
from pwmlib.tasks import make

from .cost import COST, agent_s
from .jobs import policy_job
from .one_task import one_task, one_task_policy
from .stages import MultitaskExperiment

__all__ = ["FineTuning", "fine_tuning_job"]

EVALUATE_EVERY = 10
"""Own episodes between two evaluations."""


@dataclass(frozen=True)
class FineTuning:
    """Fine-tuning that belongs to an experiment. Every method does only what is missing.

    tasks: indices of the experiment's tasks.
    """

    experiment: MultitaskExperiment
    tasks: tuple[int, ...]

    def cost(self) -> str:
        """What is about to be run, and about how long it takes on this number of processes, from recorded costs; empty for no task."""
        if not self.tasks:
            return ""
        e, c, plan = self.experiment, self.config(), self.experiment.scale.fine_tuning
        latent = e.load_world_model().latent_dim if e.as_shipped else e.scale.model.latent_dim
        evaluated = (2 + (plan.first_episodes + plan.episodes) // EVALUATE_EVERY) * e.scale.eval_episodes
        suites = [e.tasks[i].suite for i in self.tasks]
        each = [agent_s(c, latent, suite) + evaluated * COST[f"{suite}_episode_s"] for suite in suites]
        minutes = e.train_seeds * sum(each) / 60 / max(1, e.workers)
        return (
            f"Fine-tuning online: {len(self.tasks) * e.train_seeds} policies, {plan.episodes} episodes each, about {minutes:.0f} min "
            f"on {e.workers} processes."
        )

    def table(self) -> pd.DataFrame:
        """One line a policy and evaluation: start (the plan's policy: anew or extracted), task, suite, train_seed, own_episodes (0: how it
        starts), score, mean_return, success, touched, model_value, real_value."""
        e, each = self.experiment, [(i, seed) for i in self.tasks for seed in range(self.experiment.train_seeds)]
        e.train_world_model()
        note_plan(e.runs_dir, "fine-tuning", [self.run(i, seed) for i, seed in each])
        part = replace(self, experiment=e._for_job())
        jobs = [Job(f"{e.tasks[i].name} seed {seed}", fine_tuning_job, {"fine_tuning": part, "index": i, "seed": seed}) for i, seed in each]
        start = e.scale.fine_tuning.policy
        return pd.DataFrame([{"start": start, **line} for lines in e._run(jobs, "fine-tuning online") for line in lines])

    def run(self, index: int, seed: int) -> Run:
        """Name the run of `fine_tuning_job`."""
        e, t, scale = self.experiment, self.experiment.tasks[index], self.experiment.scale
        params = {"world_model": e.world_model_name(), "task": t.name, "train_seed": seed, "policy": scale.policy}
        params |= {"plan": scale.fine_tuning, "eval_episodes": scale.eval_episodes}
        if scale.anchor and scale.fine_tuning.policy == "extracted":
            params["anchor"] = scale.anchor
        return Run(e.runs_dir, "fine_tuning", f"{t.name}-seed{seed}", params)

    def config(self) -> OnlineConfig:
        """The loop's settings: the plan's, with the scale's networks and learning rates of the policy."""
        scale = self.experiment.scale
        return scale.fine_tuning.online(scale.model, scale.policy)

    def replay(self, index: int) -> Sequence[np.ndarray]:
        """The task's offline episodes; none where the world model was shipped without them."""
        e = self.experiment
        return () if e.as_shipped else e.store(e.tasks[index]).arrays()


def fine_tuning_job(fine_tuning: FineTuning, index: int, seed: int) -> list[dict[str, Any]]:
    """Let one policy act, and train it and its world model; a resumable run. Where the plan asks for the extracted policy, that is
    extracted first if it is missing. Returns a line every `EVALUATE_EVERY` episodes, the first one before any."""
    e, t, scale = fine_tuning.experiment, fine_tuning.experiment.tasks[index], fine_tuning.experiment.scale
    extracted = scale.fine_tuning.policy == "extracted"
    if extracted:
        policy_job(e, index, seed)

    def work(run: Run) -> list[dict[str, Any]]:
        learned = e.policy_run(index, seed).load_checkpoint() if extracted else None
        agent = OnlineAgent(
            make(t),
            fine_tuning.config(),
            model=one_task(e.load_world_model(), e.model_index(index), t.obs_dim, t.action_dim),
            actor_state=one_task_policy(learned["actor"], t.action_dim) if learned else None,
            critics_state=learned["critics"] if learned else None,
            replay=fine_tuning.replay(index),
            seed=seed,
            device=resolve_device(e.device),
        )
        envs = [make(t) for _ in range(scale.eval_episodes)]

        def evaluate() -> None:
            evaluation, episodes = evaluate_policy(envs, agent.learner.actor, agent.view)
            values = believed_and_real_value(agent.learner.critics, agent.view, episodes, obs_dim=t.obs_dim, gamma=scale.policy.gamma)
            head = {"task": t.name, "suite": t.suite, "train_seed": seed, "own_episodes": len(agent.episodes)}
            run.log(**head, **evaluation.row(), **dict(zip(("model_value", "real_value"), values, strict=True)))
            run.save_checkpoint(agent.state_dict())

        saved = run.load_checkpoint()
        if saved is None:
            evaluate()
        else:
            agent.load_state_dict(saved)
        while not agent.finished:
            agent.advance()
            if len(agent.episodes) % EVALUATE_EVERY == 0 or agent.finished:
                evaluate()
        return run.rows

    return fine_tuning.run(index, seed).execute(work)
