"""Online fine-tuning (App. C.4): policies act in the real task and learn, each with its own copy of the multi-task world model."""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import pandas as pd

from companion.running.runs import Run
from pwmlib.tasks import make

from .cost import COST, agent_s
from .jobs import judged, own_agent, policy_job
from .online import EVALUATE_EVERY, one_task_policy, run_agent
from .stages import MultitaskExperiment


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
        e, plan = self.experiment, self.experiment.scale.fine_tuning
        c = plan.online(e.scale.model, e.scale.policy)
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
        e = self.experiment
        e.train_world_model()
        done = e.for_each(fine_tuning_job, e.each_policy(self.tasks), "fine-tuning online", partial(fine_tuning_run, e))
        return pd.DataFrame({"start": e.scale.fine_tuning.policy, **line} for line in chain.from_iterable(done))


def fine_tuning_run(experiment: MultitaskExperiment, index: int, seed: int) -> Run:
    """Name the run of `fine_tuning_job`."""
    e, t, scale = experiment, experiment.tasks[index], experiment.scale
    params = {"world_model": e.world_model_name(), "task": t.name, "train_seed": seed, "policy": scale.policy}
    params |= {"plan": scale.fine_tuning, "eval_episodes": scale.eval_episodes}
    if scale.anchor and scale.fine_tuning.policy == "extracted":
        params["anchor"] = scale.anchor
    return Run(e.runs_dir, "fine_tuning", f"{t.name}-seed{seed}", params)


def fine_tuning_job(experiment: MultitaskExperiment, index: int, seed: int) -> list[dict[str, Any]]:
    """Let one policy act, and train it and its world model; a resumable run. Where the plan asks for the extracted policy, that is
    extracted first if it is missing. Returns a line every `EVALUATE_EVERY` episodes, the first one before any."""
    e, t, scale = experiment, experiment.tasks[index], experiment.scale
    extracted = scale.fine_tuning.policy == "extracted"
    if extracted:
        policy_job(e, index, seed)

    def work(run: Run) -> list[dict[str, Any]]:
        given: dict[str, Any] = {"replay": () if e.as_shipped else e.store(t).arrays()}  # the shipped model comes without its episodes
        if extracted:
            learned = e.policy_run(index, seed).load_checkpoint()
            given |= {"actor_state": one_task_policy(learned["actor"], t.action_dim), "critics_state": learned["critics"]}
        agent = own_agent(e, index, scale.fine_tuning.online(scale.model, scale.policy), seed=seed, **given)
        envs = [make(t) for _ in range(scale.eval_episodes)]

        def evaluate() -> dict[str, Any]:
            head = {"task": t.name, "suite": t.suite, "train_seed": seed, "own_episodes": len(agent.episodes)}
            return {**head, **judged(envs, agent.learner.actor, agent.learner.critics, agent.view, scale.policy.gamma)}

        return run_agent(run, agent, evaluate, due=lambda count: count % EVALUATE_EVERY == 0)

    return fine_tuning_run(e, index, seed).execute(work)
