"""One training run: an algorithm on a task with a seed, resumable, with its learning curve and its fate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from companion.running.runs import Run, train
from companion.single_task.watched import DivergedError, Learner, Spent, Watched
from pwmlib.baselines.sb3_config import SB3Config
from pwmlib.baselines.tdmpc2_online import OnlineTDMPC2, OnlineTDMPC2Config
from pwmlib.data.replay import Replay
from pwmlib.errors import NonFiniteError
from pwmlib.optimizer.imagination import Rollout
from pwmlib.optimizer.offline_robots import OfflinePWM, OfflinePWMConfig
from pwmlib.optimizer.online_robots import OnlinePWM, OnlinePWMConfig
from pwmlib.optimizer.shac import SHAC, SHACConfig
from pwmlib.settings import Count, Positive, settings
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.registry import env_spec
from pwmlib.sim.training_env import TrainingEnv, evaluate_policy

from .gradient_check import gradient_check

__all__ = ["Algorithm", "SingleTaskSettings", "load_policy", "parts_of", "run_single_task", "single_task_run"]

Algorithm = Literal["shac", "pwm", "pwm_scratch", "pwm_state_space", "pwm_offline", "tdmpc2", "ppo", "sac"]
"""pwm: the world model is pre-trained on the replay of a SHAC run (the paper); pwm_scratch: on random actions only; pwm_state_space: the
same with a model whose latent is the observation itself, predicting its change (a deviation from the paper); pwm_offline: the model of a
SHAC run's replay stays frozen, no real step of its own."""


LARGEST_REPLAY = 5_000_000
"""Steps of all robots together that PWM keeps, or all of a given replay that has more; 3.5 GB for Humanoid. (Released code: 1 million.)"""


@settings
class SingleTaskSettings:
    """Sizes of one scale. updates are those of the policy."""

    shac: SHACConfig = SHACConfig()
    pwm: OnlinePWMConfig = OnlinePWMConfig()
    state_space: OnlinePWMConfig = OnlinePWMConfig()
    offline: OfflinePWMConfig = OfflinePWMConfig()
    tdmpc2: OnlineTDMPC2Config = OnlineTDMPC2Config()
    ppo: SB3Config = SB3Config()
    sac: SB3Config = SB3Config(hidden=(256, 256))
    replay: SHACConfig = SHACConfig(horizon=16, updates=300)
    """The SHAC run whose replay PWM's world model is pre-trained on."""
    envs: Count | None = None
    """Environments at once; None: the task's number."""
    eval_episodes: Count = 32
    evaluate_every: Count = 50
    checkpoint_every: Count = 100
    largest_value: Positive = 1e6
    """A critic loss beyond its square ends the run as diverged."""


def run_single_task(
    algorithm: Algorithm, task: str, seed: int, settings: SingleTaskSettings, runs_dir: str | Path, *, stiffness: float = 1.0,
    device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Train, evaluating the deterministic policy in other environments as it goes. Returns the run's line of the results.

    status: "finished" or "diverged" (with the reason; what was learned until then is kept and shown). last, best: mean return of the
    evaluation episodes; curve: one line per evaluation with step (updates of the policy), gradient_steps (of every network's optimiser),
    env_steps, wall_s, cpu_s (these four count the given replay's), mean_return, training_return (mean return of the whole episodes, noise
    included, that ended in training since the evaluation before; absent where none did), for PWM `gradient_check`, for TD-MPC2
    prior_return (mean_return is with planning, in fewer episodes).
    """

    def work(run: Run) -> dict[str, Any]:
        made = _make(algorithm, task, seed, settings, Path(runs_dir), stiffness, device)
        learner, before = made.learner, made.before
        watched = Watched(learner, settings.largest_value, before)
        where = {"stiffness": stiffness, "device": device}

        def evaluate(step: int) -> dict[str, Any]:
            if step < 0:
                return {}  # the world model alone is being trained
            policy, episodes, scores = learner.actor, settings.eval_episodes, {}
            if isinstance(learner, OnlineTDMPC2):
                prior = evaluate_policy(policy, task, episodes=episodes, **where)
                episodes, scores = settings.tdmpc2.planned_episodes, {"prior_return": float(prior.mean())}
                policy = learner.planning_policy(episodes)
            returns = evaluate_policy(policy, task, episodes=episodes, **where)
            scores |= {"mean_return": float(returns.mean()), "std_over_episodes": float(returns.std())}
            if isinstance(learner, OnlinePWM | OfflinePWM):
                scores |= gradient_check(learner.model, learner.actor, task, **where)
            trained = made.env.training_return()
            scores |= {} if trained is None else {"training_return": trained}
            cost = {"gradient_steps": watched.gradient_steps, "wall_s": watched.wall, "cpu_s": watched.cpu}
            return scores | {"env_steps": before.env_steps + step * made.steps, **cost}

        status, reason = "finished", ""
        every = {"checkpoint_every": settings.checkpoint_every, "evaluate_every": settings.evaluate_every}
        try:
            train(run, watched, made.updates, evaluate=evaluate, **every)
        except (NonFiniteError, DivergedError) as error:
            status, reason = "diverged", str(error)
        else:
            run.save_checkpoint(watched.policy_state())
        curve = [row for row in run.rows if "mean_return" in row]
        found = [row["mean_return"] for row in curve] or [float("nan")]
        line = {"task": task, "algorithm": algorithm, "train_seed": seed, "stiffness": stiffness, "status": status, "reason": reason}
        return {**line, "last": found[-1], "best": max(found), "updates": watched.step, "curve": curve}

    return single_task_run(algorithm, task, seed, settings, runs_dir, stiffness=stiffness).execute(work)


def parts_of(algorithm: Algorithm) -> tuple[str, ...]:
    """Names of the settings that an algorithm depends on."""
    named = {
        "pwm": ("pwm", "replay"),
        "pwm_scratch": ("pwm",),
        "pwm_state_space": ("state_space",),
        "pwm_offline": ("offline", "replay"),
    }
    return named.get(algorithm, (algorithm,))


def single_task_run(
    algorithm: Algorithm, task: str, seed: int, settings: SingleTaskSettings, runs_dir: str | Path, *, stiffness: float = 1.0
) -> Run:
    """The run of `run_single_task`; it depends on the sizes of its own algorithm only. Raises ValueError unless task is a name."""
    if not isinstance(task, str):
        raise ValueError(
            f"run_single_task: task must be the name of an environment, by which its run is found again, got {task!r}. "
            "Give your own a name with pwmlib.sim.ENVS['my_robot'] = EnvSpec(...), then pass 'my_robot'."
        )
    common = ("envs", "eval_episodes", "evaluate_every", "largest_value")
    sizes = {name: getattr(settings, name, None) for name in (*parts_of(algorithm), *common)}
    params = {"algorithm": algorithm, "task": task, "seed": seed, "stiffness": stiffness, **sizes}
    return Run(runs_dir, "single_task", f"{task}-{algorithm}-seed{seed}", params)


def load_policy(
    algorithm: Algorithm, task: str, seed: int, settings: SingleTaskSettings, runs_dir: str | Path, *, stiffness: float = 1.0,
    device: str = "cpu",
) -> Callable[[Tensor, None], Tensor]:  # fmt: skip
    """The last policy of a run: (observations [n, obs_dim], None) -> actions."""
    run = single_task_run(algorithm, task, seed, settings, runs_dir, stiffness=stiffness)
    saved = run.load_checkpoint()
    if saved is None:
        raise FileNotFoundError(f"{run.folder}: no checkpoint; run_single_task first")
    learner = _make(algorithm, task, seed, settings, Path(runs_dir), stiffness, device).learner
    learner.load_state_dict(saved["learner"])
    return learner.actor


def shac_replay(
    task: str, seed: int, config: SHACConfig, count: int, runs_dir: Path, *, stiffness: float, device: str
) -> tuple[Replay, Spent]:
    """Every step of a SHAC run from its beginning, as a resumable run: the trajectories of varying quality that PWM starts from; and
    what they cost."""
    params = {"task": task, "seed": seed, "shac": config, "stiffness": stiffness, "count": count}
    run = Run(runs_dir, "shac_replay", f"{task}-seed{seed}", params)
    env = DifferentiableEnv(task, count, stiffness=stiffness, seed=seed, device=device)
    replay = Replay(config.updates * config.horizon, count, env.obs_dim, env.action_dim)

    def work(run: Run) -> dict[str, float]:
        watched = Watched(_Recording(env, config, seed, replay), math.inf)
        train(run, watched, config.updates, checkpoint_every=max(1, config.updates // 3))
        cost = {"gradient_steps": watched.gradient_steps, "wall_s": watched.wall, "cpu_s": watched.cpu}
        return {"env_steps": len(replay) * count, **cost}

    spent = run.execute(work)
    replay.load_state_dict(run.load_checkpoint()["learner"]["replay"])
    return replay, Spent(**spent)


class _Recording:
    """A SHAC learner that keeps what it lives through."""

    def __init__(self, env: DifferentiableEnv, config: SHACConfig, seed: int, replay: Replay):
        self.replay = replay
        self.shac = SHAC(env, config, seed=seed, record=self._record)

    @property
    def step(self) -> int:
        return self.shac.step

    def update(self) -> dict[str, float]:
        return self.shac.update()

    def _record(self, roll: Rollout) -> None:
        for row in zip(roll.states, roll.actions, roll.rewards, roll.reached, roll.terminated, roll.truncated, strict=True):
            self.replay.add(*(x.cpu() for x in row))

    def state_dict(self) -> dict[str, Any]:
        return {"shac": self.shac.state_dict(), "replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shac.load_state_dict(state["shac"])
        self.replay.load_state_dict(state["replay"])


@dataclass(frozen=True)
class _Made:
    """A learner, its policy updates, the real steps that one costs, and what was spent before."""

    learner: Learner
    env: TrainingEnv
    updates: int
    steps: int
    before: Spent = Spent()


def _make(algorithm: Algorithm, task: str, seed: int, settings: SingleTaskSettings, runs_dir: Path, stiffness: float, device: str) -> _Made:
    count = settings.tdmpc2.envs if algorithm == "tdmpc2" else settings.envs or env_spec(task).count
    env = TrainingEnv(task, count, stiffness=stiffness, seed=seed, device=device)
    if algorithm == "shac":
        return _Made(SHAC(env, settings.shac, seed=seed), env, settings.shac.updates, settings.shac.horizon * count)
    if algorithm in ("ppo", "sac"):
        from pwmlib.baselines.sb3 import SB3Learner

        config = getattr(settings, algorithm)
        return _Made(SB3Learner(algorithm, env, config, seed=seed), env, config.updates, config.steps * count)
    if algorithm == "tdmpc2":
        config = settings.tdmpc2
        before = Spent(env_steps=config.random_steps * count)
        return _Made(OnlineTDMPC2(env, config, seed=seed), env, config.updates, config.steps * count, before)
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"algorithm must be one of {', '.join(get_args(Algorithm))}, got {algorithm!r}")
    given, config = None, settings.state_space if algorithm == "pwm_state_space" else settings.pwm
    before = Spent(env_steps=config.random_steps * count)
    if algorithm in ("pwm", "pwm_offline"):
        given, before = shac_replay(task, seed, settings.replay, count, runs_dir, stiffness=stiffness, device=device)
    if algorithm == "pwm_offline":
        return _Made(OfflinePWM(given, settings.offline, seed=seed, device=device), env, settings.offline.policy.updates, 0, before)
    if algorithm == "pwm":
        everything = given.capacity + config.actor_critic.updates * config.actor_critic.horizon
        config = replace(config, replay_steps=max(config.replay_steps, given.capacity, min(everything, LARGEST_REPLAY // count)))
    learner = OnlinePWM(env, config, seed=seed, given=given)
    return _Made(learner, env, config.actor_critic.updates, config.actor_critic.horizon * count, before)
