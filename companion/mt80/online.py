"""PWM online on single real tasks (App. C.4): how far it gets with the paper's SimNorm world model and with a state-space one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from companion.running.runs import Run
from pwmlib.evaluation.scores import evaluate_policy
from pwmlib.optimizer.online_episodes import OnlineAgent, OnlineConfig
from pwmlib.tasks import make, task

from .scales import ONLINE

__all__ = ["online_seed"]

EVALUATE_EVERY = 10
EVALUATION_EPISODES = 5


def online_seed(name: str, model: str, seed: int, runs_dir: str | Path) -> list[dict[str, Any]]:
    """One agent on one task; a resumable run. Returns a line every `EVALUATE_EVERY` episodes: the mean return of the deterministic
    policy, and of the episodes since the last line, which act with noise.

    model: a key of `companion.mt80.scales.ONLINE`.
    """
    config: OnlineConfig = ONLINE[model]
    updates = config.episodes * config.policy_updates
    config = replace(config, policy=replace(config.policy, updates=updates))
    run = Run(runs_dir, "online", f"{name}-{seed}", {"task": name, "seed": seed, "config": config})

    def work(run: Run) -> list[dict[str, Any]]:
        t = task(name)
        agent, envs = OnlineAgent(make(t), config, seed=seed), [make(t) for _ in range(EVALUATION_EPISODES)]
        saved = run.load_checkpoint()
        if saved is not None:
            agent.load_state_dict(saved)
        while not agent.finished:
            agent.advance()
            count = len(agent.episodes)
            if count % EVALUATE_EVERY == 0 or agent.finished:
                evaluation, _ = evaluate_policy(envs, agent.learner.actor, agent.view)
                noisy = [e.total_reward for e in agent.episodes[-EVALUATE_EVERY:]]
                head = {"task": name, "model": model, "train_seed": seed, "episodes": count}
                run.log(**head, mean_return=evaluation.mean_return, noisy_return=sum(noisy) / len(noisy))
                run.save_checkpoint(agent.state_dict())
        return run.rows

    return run.execute(work)
