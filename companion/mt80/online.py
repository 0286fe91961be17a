"""PWM online (App. C.4): agents that act in the real task and learn, anew or with one task's part of a multi-task world model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from companion.running.runs import Run
from pwmlib.evaluation.scores import evaluate_policy
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.online_episodes import OnlineAgent
from pwmlib.tasks import make, task

from .scales import ONLINE

EVALUATE_EVERY = 10
"""Episodes between two evaluations."""
EVALUATION_EPISODES = 5


def run_agent(run: Run, agent: OnlineAgent, evaluate: Callable[[], dict[str, Any]], due: Callable[[int], bool]) -> list[dict[str, Any]]:
    """Let an agent act and learn to its end, from the run's checkpoint if there is one. Returns the logged evaluations.

    After each number of episodes that is `due`, 0 included, and at the end it is evaluated and saved.
    """

    def note() -> None:
        run.log(**evaluate())
        run.save_checkpoint(agent.state_dict())

    saved = run.load_checkpoint()
    if saved is not None:
        agent.load_state_dict(saved)
    elif due(0):
        note()
    while not agent.finished:
        agent.advance()
        if agent.finished or due(len(agent.episodes)):
            note()
    return run.rows


def online_seed(name: str, model: str, seed: int, runs_dir: str | Path) -> list[dict[str, Any]]:
    """One agent on one task with a model of `ONLINE`; a resumable run. Returns a line every `EVALUATE_EVERY` episodes: the mean return of
    the deterministic policy, and of the episodes since the last line, which act with noise."""
    config = ONLINE[model]
    config = replace(config, policy=replace(config.policy, updates=config.episodes * config.policy_updates))

    def work(run: Run) -> list[dict[str, Any]]:
        t = task(name)
        agent, envs = OnlineAgent(make(t), config, seed=seed), [make(t) for _ in range(EVALUATION_EPISODES)]

        def evaluate() -> dict[str, Any]:
            evaluation, _ = evaluate_policy(envs, agent.learner.actor, agent.view)
            noisy = [e.total_reward for e in agent.episodes[-EVALUATE_EVERY:]]
            head = {"task": name, "model": model, "train_seed": seed, "episodes": len(agent.episodes)}
            return {**head, "mean_return": evaluation.mean_return, "noisy_return": sum(noisy) / len(noisy)}

        return run_agent(run, agent, evaluate, due=lambda count: count > 0 and count % EVALUATE_EVERY == 0)

    return Run(runs_dir, "online", f"{name}-{seed}", {"task": name, "seed": seed, "config": config}).execute(work)


def divisible(config: WorldModelConfig) -> bool:
    """Say whether `one_task` can take a part of such a model: not with spectral norms, which are those of the padded matrices, nor of a
    residual one, whose policies see padded states."""
    return not (config.spectral_norm or config.residual)


def one_task(model: WorldModel, index: int, obs_dim: int, action_dim: int) -> WorldModel:
    """Copy the part of a multi-task model that serves the task of this number, as a model of its own that computes the same without the
    padding. obs_dim and action_dim: the task's true sizes. Raises ValueError where the model is not `divisible`."""
    c, e, z = model.config, model.config.task_dim, model.latent_dim
    if not divisible(c):
        raise ValueError(
            f"one_task: spectral_norm={c.spectral_norm}, residual={c.residual}; such a model has no part that computes the same"
        )
    step = slice(0, z + e + action_dim)
    columns = {
        "encoder.0.weight": [*range(obs_dim), *range(model.obs_dim, model.obs_dim + e)],
        "dynamics.0.weight": step,
        "reward_head.0.weight": step,
    }
    part, whole = WorldModel(obs_dim, action_dim, config=c), model.state_dict()
    state: dict[str, Tensor] = {}
    for name, own in part.state_dict().items():
        if name in ("action_mask", "obs_mean", "obs_std", "task_embedding.weight"):
            state[name] = whole[name][index : index + 1, : own.shape[1]]
        else:
            state[name] = whole[name][:, columns[name]] if name in columns else whole[name]
    part.load_state_dict(state)
    return part.to(model.obs_mean.device)


def one_task_policy(actor: dict[str, Tensor], action_dim: int) -> dict[str, Tensor]:
    """Return a policy's state_dict with the first `action_dim` of its padded actions."""
    last = max(int(name.split(".")[1]) for name in actor if name.startswith("mean."))
    heads = ("log_std", *(name for name in actor if name.startswith(f"mean.{last}.")))
    return {name: value[:action_dim] if name in heads else value for name, value in actor.items()}
