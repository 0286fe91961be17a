"""The jobs of a multi-task experiment: planning in the model, extracting and evaluating policies, random behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from companion.running.runs import Run, resolve_device, train
from pwmlib.data import Episode, make_behaviour
from pwmlib.data.store import record, record_together
from pwmlib.evaluation.planning import evaluate_planner
from pwmlib.evaluation.scores import EVALUATION_SEED, believed_and_real_value, evaluate_policy, summarise
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.optimizer.actor_critic import Actor, Critics
from pwmlib.optimizer.online_episodes import OnlineAgent, policy_actor
from pwmlib.optimizer.pwm import PWM
from pwmlib.optimizer.stacked import Member, StackedPolicies
from pwmlib.tasks import Task, make
from pwmlib.tasks import task as find_task

from .anchored import AnchoredPWM
from .experiment import ExperimentRuns
from .one_task import one_task
from .scales import AgentsPlan

__all__ = ["collection_job", "gate_job", "imitation_job", "policy_job", "random_job", "shipped_policy_job", "stacked_job", "trained_policy"]

COLLECTION_SEED = 1000
"""Seeds of policies that collect start here, apart from those of the policies that are judged."""


def gate_job(experiment: ExperimentRuns, index: int) -> dict[str, float]:
    """Score of planning inside the trained model in the real task; a resumable run."""
    t, scale = experiment.tasks[index], experiment.scale
    if not scale.planner_episodes:
        return dict.fromkeys(("planning_score", "planning_return", "planning_touched"), float("nan"))

    def work(run: Run) -> dict[str, float]:
        view = FrozenWorldModel(experiment.load_world_model(), experiment.model_index(index), reward_symexp=True)
        result = evaluate_planner(make(t), view, episodes=scale.planner_episodes, config=scale.planner)
        return {"planning_score": result.score, "planning_return": result.mean_return, "planning_touched": result.touched}

    return experiment.gate_run(index).execute(work)


def collection_job(experiment: ExperimentRuns, index: int) -> list[dict[str, Any]]:
    """Record episodes of a policy in the real task while it learns: the next world model's data. A resumable run; a line a stage."""
    t, shard, store = experiment.tasks[index], experiment.collected_shard(), experiment.store(experiment.tasks[index])
    number = int(shard.split("-")[1])
    plan = experiment.plan(number)
    collect = _learning if isinstance(plan, AgentsPlan) else _extraction

    def work(run: Run) -> list[dict[str, Any]]:
        episodes, lines = collect(experiment, index, number, run)
        store.write(shard, episodes)
        return [{"task": t.name, "round": number, **line} for line in lines]

    run = experiment.collection_run(index)
    if run.status == "finished" and not store.has(shard):
        run.forget()
    return run.execute(work)


def _extraction(experiment: ExperimentRuns, index: int, number: int, run: Run) -> tuple[list[Episode], list[dict[str, Any]]]:
    """Episodes of a policy that is extracted from the present, frozen world model, in stages."""
    t, plan = experiment.tasks[index], experiment.plan(number)
    c = plan.policy
    view = FrozenWorldModel(
        experiment.load_world_model(), experiment.model_index(index), precision=c.precision, reward_symexp=c.reward_symexp
    )
    learner = PWM(view, experiment.starts(index, view), c, seed=COLLECTION_SEED + number, device=resolve_device(experiment.device))
    parts = np.array_split(np.arange(plan.episodes), plan.stages)
    envs = [make(t) for _ in parts[0]]
    episodes, lines = [], []
    for stage, part in enumerate(parts, 1):
        while learner.step < c.updates * stage // plan.stages:
            learner.update()
        rng = np.random.default_rng([COLLECTION_SEED, number, stage])
        noisy = (part % 2)[:, None]  # every other episode acts without noise
        act = policy_actor(learner.actor, view, envs[0], rng, noise_scale=noisy)
        seeds = [int(s) for s in rng.integers(2**31, size=len(part))]
        episodes += record_together(envs[: len(part)], act, seeds=seeds, behaviour=f"policy_round_{number}")
        done = summarise(envs[0], [e for e, n in zip(episodes[-len(part) :], noisy[:, 0], strict=True) if not n])
        lines.append({"updates": learner.step, "score": done.score, "mean_return": done.mean_return})
    return episodes, lines


def _learning(experiment: ExperimentRuns, index: int, number: int, run: Run) -> tuple[list[Episode], list[dict[str, Any]]]:
    """Episodes of an agent that goes on learning with its own copy of the present world model; its state is kept in the run."""
    t, scale, plan = experiment.tasks[index], experiment.scale, experiment.plan(number)
    agent = OnlineAgent(
        make(t),
        plan.agent.online(scale.model, plan.policy),
        model=one_task(experiment.load_world_model(), experiment.model_index(index), t.obs_dim, t.action_dim),
        replay=experiment.store(t).arrays(),
        seed=COLLECTION_SEED + number,
        device=resolve_device(experiment.device),
    )
    saved = run.load_checkpoint()
    if saved is not None:
        agent.load_state_dict(saved)
    envs, every = [make(t) for _ in range(scale.eval_episodes)], max(1, plan.agent.episodes // plan.stages)
    while not agent.finished:
        agent.advance()
        own = len(agent.episodes) - plan.agent.first_episodes
        if agent.finished or (own > 0 and own % every == 0):
            evaluation, _ = evaluate_policy(envs, agent.learner.actor, agent.view)
            run.log(updates=agent.learner.step, score=evaluation.score, mean_return=evaluation.mean_return)
            run.save_checkpoint(agent.state_dict())
    return [replace(e, behaviour=f"agent_round_{number}") for e in agent.episodes], run.rows


def shipped_policy_job(experiment: ExperimentRuns, index: int) -> list[dict[str, Any]]:
    """Scores of the task's shipped policies in the real task; a resumable run. Returns a line a policy."""
    t, scale, policies = experiment.tasks[index], experiment.scale, experiment.shipped.policies().get(experiment.tasks[index].name, {})

    def work(run: Run) -> list[dict[str, Any]]:
        view, envs = FrozenWorldModel(experiment.load_world_model(), experiment.model_index(index)), None
        lines = []
        for seed, actor in sorted(policies.items()):
            envs = envs or [make(t) for _ in range(scale.eval_episodes)]
            evaluation, _ = evaluate_policy(envs, actor, view)
            lines.append({"task": t.name, "suite": t.suite, "train_seed": seed, **evaluation.row()})
        return lines

    params = {"world_model": experiment.world_model_name(), "seeds": sorted(policies), "eval_episodes": scale.eval_episodes}
    return Run(experiment.runs_dir, "shipped_policy", t.name, params | {"task": t.name}).execute(work)


def policy_job(experiment: ExperimentRuns, index: int, seed: int) -> dict[str, Any]:
    """Extract and evaluate one policy from the trained model; a resumable run. Returns its line of the results."""
    t, scale = experiment.tasks[index], experiment.scale

    def work(run: Run) -> dict[str, Any]:
        device = resolve_device(experiment.device)
        view = FrozenWorldModel(
            experiment.load_world_model(),
            experiment.model_index(index),
            precision=scale.policy.precision,
            reward_symexp=scale.policy.reward_symexp,
        )
        envs = [make(t) for _ in range(scale.eval_episodes)]
        if scale.anchor:
            learner = AnchoredPWM(view, scale.policy, scale.anchor, experiment.shown(index), seed=seed, device=device)
        else:
            learner = PWM(view, experiment.starts(index, view), scale.policy, seed=seed, device=device)

        def evaluate(step: int) -> dict[str, Any]:
            evaluation, episodes = evaluate_policy(envs, learner.actor, view)
            believed, real = believed_and_real_value(learner.critics, view, episodes, obs_dim=t.obs_dim, gamma=scale.policy.gamma)
            return {**evaluation.row(), "model_value": believed, "real_value": real}

        how = {"evaluate_every": scale.evaluate_every, "checkpoint_every": scale.checkpoint_every}
        train(run, learner, scale.policy.updates, evaluate=evaluate, **how)
        evaluated = [row for row in run.rows if "score" in row]
        return _line(t, seed, evaluated, learner.step)

    return experiment.policy_run(index, seed).execute(work)


def imitation_job(experiment: ExperimentRuns, index: int, seed: int) -> dict[str, Any]:
    """Evaluate the imitation that an anchored policy begins as; a run. Returns its line of the results."""
    t, scale = experiment.tasks[index], experiment.scale

    def work(run: Run) -> dict[str, Any]:
        c, device = scale.policy, resolve_device(experiment.device)
        model, number = experiment.load_world_model(), experiment.model_index(index)
        view = FrozenWorldModel(model, number, precision=c.precision, reward_symexp=c.reward_symexp)
        learner = AnchoredPWM(view, c, scale.anchor, experiment.shown(index), seed=seed, device=device)
        evaluation, _ = evaluate_policy([make(t) for _ in range(scale.eval_episodes)], learner.actor, view)
        return {"task": t.name, "suite": t.suite, "train_seed": seed, **evaluation.row(), "updates": 0}

    return Run(experiment.runs_dir, "imitation", f"{t.name}-seed{seed}", experiment.policy_run(index, seed).params).execute(work)


def trained_policy(experiment: ExperimentRuns, index: int, seed: int, stack: Sequence[tuple[int, int]] | None) -> Actor:
    """Read the policy that `policy_job` extracted, or `stacked_job` together with others; stack: those, or None."""
    scale, model = experiment.scale, experiment.load_world_model()
    view = FrozenWorldModel(model, experiment.model_index(index))
    if stack is None:
        saved = experiment.policy_run(index, seed).load_checkpoint()
        learner = PWM(view, None, scale.policy, device=resolve_device(experiment.device))
        learner.load_state_dict(saved)
        return learner.actor
    members = [Member(experiment.model_index(i), s, lambda batch, generator: torch.empty(0)) for i, s in stack]
    together = StackedPolicies(model, members, scale.policy, device=resolve_device(experiment.device))
    together.load_state_dict(stacked_run(experiment, stack).load_checkpoint()["stack"])
    return together.actors[stack.index((index, seed))]


def stacked_job(experiment: ExperimentRuns, members: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """What `policy_job` does, for many (task index, seed) at once on one device; one resumable run. Returns their lines."""
    scale = experiment.scale

    def work(run: Run) -> list[dict[str, Any]]:
        device = resolve_device(experiment.device)
        model = experiment.load_world_model()
        views = [FrozenWorldModel(model, experiment.model_index(i), reward_symexp=scale.policy.reward_symexp) for i, _ in members]
        stack = [
            Member(experiment.model_index(i), seed, experiment.starts(i, view)) for (i, seed), view in zip(members, views, strict=True)
        ]
        learner = _Evaluated(StackedPolicies(model, stack, scale.policy, device=device), experiment, members, views)
        every = {"checkpoint_every": scale.checkpoint_every, "evaluate_every": scale.evaluate_every}
        train(run, learner, scale.policy.updates, evaluate=learner.evaluate, **every)
        return learner.lines()

    return stacked_run(experiment, members).execute(work)


def stacked_run(experiment: ExperimentRuns, members: Sequence[tuple[int, int]]) -> Run:
    """Name the run of `stacked_job`."""
    params = [experiment.policy_run(i, seed).params for i, seed in members]
    return Run(experiment.runs_dir, "policies_stacked", f"{len(members)}-policies", params)


class _Evaluated:
    """Stacked policies with their evaluations, as one resumable learner."""

    def __init__(
        self, stack: StackedPolicies, experiment: ExperimentRuns, members: Sequence[tuple[int, int]], views: list[FrozenWorldModel]
    ):
        self.stack, self.experiment, self.members, self.views = stack, experiment, members, views
        self.evaluations: list[list[dict[str, Any]]] = []

    @property
    def step(self) -> int:
        return self.stack.step

    def update(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.stack.update().items()}

    def evaluate(self, step: int) -> dict[str, Any]:
        """Evaluate every policy; the mean score, for the log."""
        each = zip(self.members, self.views, self.stack.actors, self.stack.critics, strict=True)
        self.evaluations.append([self._evaluate(*one) for one in each])
        return {"score": float(np.mean([row["score"] for row in self.evaluations[-1]]))}

    def _evaluate(self, member: tuple[int, int], view: FrozenWorldModel, actor: Actor, critics: Critics) -> dict[str, Any]:
        t, scale = self.experiment.tasks[member[0]], self.experiment.scale
        envs = [make(t) for _ in range(scale.eval_episodes)]
        evaluation, episodes = evaluate_policy(envs, actor, view)
        believed, real = believed_and_real_value(critics, view, episodes, obs_dim=t.obs_dim, gamma=scale.policy.gamma)
        return {**evaluation.row(), "model_value": believed, "real_value": real}

    def lines(self) -> list[dict[str, Any]]:
        """The table's lines."""
        each = zip(self.members, zip(*self.evaluations, strict=True), strict=True)
        return [_line(self.experiment.tasks[i], seed, list(rows), self.step) for (i, seed), rows in each]

    def state_dict(self) -> dict[str, Any]:
        return {"stack": self.stack.state_dict(), "evaluations": self.evaluations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stack.load_state_dict(state["stack"])
        self.evaluations = state["evaluations"]


def _line(t: Task, seed: int, evaluated: list[dict[str, Any]], updates: int) -> dict[str, Any]:
    last = {k: evaluated[-1][k] for k in ("score", "mean_return", "success", "touched", "model_value", "real_value")}
    best = max(row["score"] for row in evaluated)
    return {"task": t.name, "suite": t.suite, "train_seed": seed, **last, "best_score": best, "updates": updates}


def random_job(name: str, episodes: int = 5) -> dict[str, Any]:
    """Score of uniform random actions."""
    env = make(find_task(name))
    played = []
    for i in range(episodes):
        act = make_behaviour("uniform_random", env, np.random.default_rng([99, i]))
        played.append(record(env, act, seed=EVALUATION_SEED + i, behaviour="uniform_random"))
    result = summarise(env, played)
    return {"task": name, "random_score": result.score, "random_return": result.mean_return}
