"""The jobs of a multi-task experiment: planning in the model, extracting and evaluating policies, random behaviour."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from companion.running.runs import Run, Together, resolve_device, train
from pwmlib.data import Episode, make_behaviour
from pwmlib.data.store import record, record_together
from pwmlib.evaluation.planning import evaluate_planner
from pwmlib.evaluation.scores import EVALUATION_SEED, believed_and_real_value, evaluate_policy, summarise
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.optimizer.actor_critic import Actor, Critics
from pwmlib.optimizer.online_episodes import OnlineAgent, OnlineConfig, policy_actor
from pwmlib.optimizer.pwm import PWM
from pwmlib.optimizer.stacked import Member, StackedPolicies
from pwmlib.tasks import Environment, Task, make
from pwmlib.tasks import task as find_task

from .anchored import AnchoredPWM, shown
from .experiment import ExperimentRuns
from .online import one_task, run_agent
from .scales import AgentsPlan

COLLECTION_SEED = 1000
"""Seeds of policies that collect start here, apart from those of the policies that are judged."""


def judged(envs: Sequence[Environment], actor: Actor, critics: Critics, view: FrozenWorldModel, gamma: float) -> dict[str, Any]:
    """A policy's scores in the real task, and what its critics believe of it beside what really follows."""
    evaluation, episodes = evaluate_policy(envs, actor, view)
    believed, real = believed_and_real_value(critics, view, episodes, obs_dim=envs[0].task.obs_dim, gamma=gamma)
    return {**evaluation.row(), "model_value": believed, "real_value": real}


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
    collect = _learning if isinstance(experiment.plan(number), AgentsPlan) else _extraction

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
    view = experiment.view(index, plan.policy)
    seed, device = COLLECTION_SEED + number, resolve_device(experiment.device)
    learner = PWM(view, experiment.starts(index, view), plan.policy, seed=seed, device=device)
    parts = np.array_split(np.arange(plan.episodes), plan.stages)
    envs = [make(t) for _ in parts[0]]
    episodes, lines = [], []
    for stage, part in enumerate(parts, 1):
        while learner.step < plan.policy.updates * stage // plan.stages:
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
    config, replay = plan.agent.online(scale.model, plan.policy), experiment.store(t).arrays()
    agent = own_agent(experiment, index, config, seed=COLLECTION_SEED + number, replay=replay)
    envs, every = [make(t) for _ in range(scale.eval_episodes)], max(1, plan.agent.episodes // plan.stages)

    def evaluate() -> dict[str, Any]:
        evaluation, _ = evaluate_policy(envs, agent.learner.actor, agent.view)
        return {"updates": agent.learner.step, "score": evaluation.score, "mean_return": evaluation.mean_return}

    first = plan.agent.first_episodes
    lines = run_agent(run, agent, evaluate, due=lambda count: count > first and (count - first) % every == 0)
    return [replace(e, behaviour=f"agent_round_{number}") for e in agent.episodes], lines


def own_agent(experiment: ExperimentRuns, index: int, config: OnlineConfig, **given: Any) -> OnlineAgent:
    """An agent on a task with its own copy of the present world model; given: the other arguments of `OnlineAgent`."""
    t = experiment.tasks[index]
    model = one_task(experiment.load_world_model(), experiment.model_index(index), t.obs_dim, t.action_dim)
    return OnlineAgent(make(t), config, model=model, device=resolve_device(experiment.device), **given)


def shipped_policy_job(experiment: ExperimentRuns, index: int) -> list[dict[str, Any]]:
    """Scores of the task's shipped policies in the real task; a resumable run. Returns a line a policy."""
    t, scale, policies = experiment.tasks[index], experiment.scale, experiment.shipped.policies().get(experiment.tasks[index].name, {})

    def work(run: Run) -> list[dict[str, Any]]:
        view, envs = experiment.view(index), [make(t) for _ in range(scale.eval_episodes)]
        found = {seed: evaluate_policy(envs, actor, view)[0].row() for seed, actor in sorted(policies.items())}
        return [{"task": t.name, "suite": t.suite, "train_seed": seed, **row} for seed, row in found.items()]

    params = {"world_model": experiment.world_model_name(), "seeds": sorted(policies), "eval_episodes": scale.eval_episodes}
    return Run(experiment.runs_dir, "shipped_policy", t.name, params | {"task": t.name}).execute(work)


def _learner(experiment: ExperimentRuns, index: int, seed: int, view: FrozenWorldModel) -> PWM:
    """The learner of one policy, which begins as an imitation where the scale has an anchor."""
    t, scale, common = experiment.tasks[index], experiment.scale, {"seed": seed, "device": resolve_device(experiment.device)}
    if scale.anchor:
        data = shown(experiment.store(t).arrays(), t.obs_dim, scale.anchor.sharpness)
        return AnchoredPWM(view, scale.policy, scale.anchor, data, **common)
    return PWM(view, experiment.starts(index, view), scale.policy, **common)


def policy_job(experiment: ExperimentRuns, index: int, seed: int) -> dict[str, Any]:
    """Extract and evaluate one policy from the trained model; a resumable run. Returns its line of the results."""
    t, scale = experiment.tasks[index], experiment.scale

    def work(run: Run) -> dict[str, Any]:
        view = experiment.view(index, scale.policy)
        envs, learner = [make(t) for _ in range(scale.eval_episodes)], _learner(experiment, index, seed, view)

        def evaluate(step: int) -> dict[str, Any]:
            return judged(envs, learner.actor, learner.critics, view, scale.policy.gamma)

        how = {"evaluate_every": scale.evaluate_every, "checkpoint_every": scale.checkpoint_every}
        train(run, learner, scale.policy.updates, evaluate=evaluate, **how)
        return _line(t, seed, [row for row in run.rows if "score" in row], learner.step)

    return experiment.policy_run(index, seed).execute(work)


def imitation_job(experiment: ExperimentRuns, index: int, seed: int) -> dict[str, Any]:
    """Evaluate the imitation that an anchored policy begins as; a run. Returns its line of the results."""
    t, scale = experiment.tasks[index], experiment.scale

    def work(run: Run) -> dict[str, Any]:
        view = experiment.view(index, scale.policy)
        learner = _learner(experiment, index, seed, view)
        evaluation, _ = evaluate_policy([make(t) for _ in range(scale.eval_episodes)], learner.actor, view)
        return {"task": t.name, "suite": t.suite, "train_seed": seed, **evaluation.row(), "updates": 0}

    return Run(experiment.runs_dir, "imitation", f"{t.name}-seed{seed}", experiment.policy_run(index, seed).params).execute(work)


def trained_policy(experiment: ExperimentRuns, index: int, seed: int, stack: Sequence[tuple[int, int]] | None) -> Actor:
    """Read the policy that `policy_job` extracted, or `stacked_job` together with others; stack: those, or None."""
    policy, device = experiment.scale.policy, resolve_device(experiment.device)
    if stack is None:
        learner = PWM(experiment.view(index), None, policy, device=device)
        learner.load_state_dict(experiment.policy_run(index, seed).load_checkpoint())
        return learner.actor
    members = [Member(experiment.model_index(i), s, lambda batch, generator: torch.empty(0)) for i, s in stack]
    together = StackedPolicies(experiment.load_world_model(), members, policy, device=device)
    together.load_state_dict(stacked_run(experiment, stack).load_checkpoint()["stack"])
    return together.actors[stack.index((index, seed))]


def stacked_job(experiment: ExperimentRuns, members: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """What `policy_job` does, for many (task index, seed) at once on one device; one resumable run. Returns their lines."""
    scale, tasks = experiment.scale, [experiment.tasks[i] for i, _ in members]

    def work(run: Run) -> list[dict[str, Any]]:
        model = experiment.load_world_model()
        views = [FrozenWorldModel(model, experiment.model_index(i), reward_symexp=scale.policy.reward_symexp) for i, _ in members]
        each = [Member(experiment.model_index(i), seed, experiment.starts(i, view)) for (i, seed), view in zip(members, views, strict=True)]
        stack = StackedPolicies(model, each, scale.policy, device=resolve_device(experiment.device))
        evaluations = _Evaluations()
        learner = _Stack(stack=stack, evaluations=evaluations)

        def evaluate(step: int) -> dict[str, Any]:
            rows = [
                judged([make(t) for _ in range(scale.eval_episodes)], actor, critics, view, scale.policy.gamma)
                for t, actor, critics, view in zip(tasks, stack.actors, stack.critics, views, strict=True)
            ]
            evaluations.append(rows)
            return {"score": float(np.mean([row["score"] for row in rows]))}

        every = {"checkpoint_every": scale.checkpoint_every, "evaluate_every": scale.evaluate_every}
        train(run, learner, scale.policy.updates, evaluate=evaluate, **every)
        of_each = zip(tasks, members, zip(*evaluations, strict=True), strict=True)
        return [_line(t, seed, rows, learner.step) for t, (_, seed), rows in of_each]

    return stacked_run(experiment, members).execute(work)


def stacked_run(experiment: ExperimentRuns, members: Sequence[tuple[int, int]]) -> Run:
    """Name the run of `stacked_job`."""
    params = [experiment.policy_run(i, seed).params for i, seed in members]
    return Run(experiment.runs_dir, "policies_stacked", f"{len(members)}-policies", params)


class _Evaluations(list):
    """Evaluations so far, each with a row a policy, as a part of a checkpoint."""

    def state_dict(self) -> list[Any]:
        return list(self)

    def load_state_dict(self, state: list[Any]) -> None:
        self[:] = state


class _Stack(Together):
    """Stacked policies as one learner with the means of their metrics."""

    def update(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.learner.update().items()}


def _line(t: Task, seed: int, evaluated: Sequence[dict[str, Any]], updates: int) -> dict[str, Any]:
    last = {k: evaluated[-1][k] for k in ("score", "mean_return", "success", "touched", "model_value", "real_value")}
    best = max(row["score"] for row in evaluated)
    return {"task": t.name, "suite": t.suite, "train_seed": seed, **last, "best_score": best, "updates": updates}


def random_job(name: str, episodes: int = 5) -> dict[str, Any]:
    """Score of uniform random actions."""
    env = make(find_task(name))
    actors = [make_behaviour("uniform_random", env, np.random.default_rng([99, i])) for i in range(episodes)]
    result = summarise(env, [record(env, a, seed=EVALUATION_SEED + i, behaviour="uniform_random") for i, a in enumerate(actors)])
    return {"task": name, "random_score": result.score, "random_return": result.mean_return}
