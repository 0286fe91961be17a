"""One training run: an algorithm on a task with a seed, resumable, with its learning curve and its fate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from companion.running.runs import Run, Together, train
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


def parts_of(algorithm: Algorithm) -> tuple[str, ...]:
    """Names of the settings that an algorithm depends on."""
    named = {"pwm": ("pwm", "replay"), "pwm_scratch": ("pwm",), "pwm_state_space": ("state_space",), "pwm_offline": ("offline", "replay")}
    return named.get(algorithm, (algorithm,))


@dataclass(frozen=True)
class SingleTaskRun:
    """An algorithm on a task with a seed: its run, and what is done in it.

    Raises ValueError unless the task is a name, by which its run is found again.
    """

    algorithm: Algorithm
    task: str
    seed: int
    settings: SingleTaskSettings
    runs_dir: str | Path
    stiffness: float = 1.0
    device: str = field(default="cpu", metadata={"later": True})

    def __post_init__(self) -> None:
        if not isinstance(self.task, str):
            raise ValueError(
                f"SingleTaskRun: task must be the name of an environment, by which its run is found again, got {self.task!r}. "
                "Give your own a name with pwmlib.sim.ENVS['my_robot'] = EnvSpec(...), then pass 'my_robot'."
            )

    @property
    def name(self) -> str:
        """Task, algorithm and seed, as progress shows them."""
        return f"{self.task} {self.algorithm} seed {self.seed}"

    @property
    def run(self) -> Run:
        """The run, which depends on the sizes of its own algorithm only."""
        common = ("envs", "eval_episodes", "evaluate_every", "largest_value")
        sizes = {name: getattr(self.settings, name, None) for name in (*parts_of(self.algorithm), *common)}
        params = {"algorithm": self.algorithm, "task": self.task, "seed": self.seed, "stiffness": self.stiffness, **sizes}
        return Run(self.runs_dir, "single_task", f"{self.task}-{self.algorithm}-seed{self.seed}", params)

    def head(self) -> dict[str, Any]:
        """The columns by which a line of the results is known."""
        return {"task": self.task, "algorithm": self.algorithm, "train_seed": self.seed, "stiffness": self.stiffness}

    def train(self) -> dict[str, Any]:
        """Train, evaluating the deterministic policy in other environments as it goes. Returns the run's line of the results.

        status: "finished" or "diverged" (with the reason; what was learned until then is kept and shown). last, best: mean return of the
        evaluation episodes; curve: one line per evaluation with step (updates of the policy), gradient_steps (of every network's
        optimiser), env_steps, wall_s, cpu_s (these four count the given replay's), mean_return, training_return (mean return of the whole
        episodes, noise included, that ended in training since the evaluation before; absent where none did), for PWM `gradient_check`,
        for TD-MPC2 prior_return (mean_return is with planning, in fewer episodes).
        """
        return self.run.execute(self._train)

    def _train(self, run: Run) -> dict[str, Any]:
        made, settings = self._made(), self.settings
        learner, before = made.learner, made.before
        watched = Watched(learner, settings.largest_value, before)
        where = {"stiffness": self.stiffness, "device": self.device}

        def evaluate(step: int) -> dict[str, Any]:
            if step < 0:
                return {}  # the world model alone is being trained
            policy, episodes, scores = learner.actor, settings.eval_episodes, {}
            if isinstance(learner, OnlineTDMPC2):
                prior = evaluate_policy(policy, self.task, episodes=episodes, **where)
                episodes, scores = settings.tdmpc2.planned_episodes, {"prior_return": float(prior.mean())}
                policy = learner.planning_policy(episodes)
            returns = evaluate_policy(policy, self.task, episodes=episodes, **where)
            scores |= {"mean_return": float(returns.mean()), "std_over_episodes": float(returns.std())}
            if isinstance(learner, OnlinePWM | OfflinePWM):
                scores |= gradient_check(learner.model, learner.actor, self.task, **where)
            trained = made.env.training_return()
            scores |= {} if trained is None else {"training_return": trained}
            return scores | {"env_steps": before.env_steps + step * made.steps, **watched.cost()}

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
        ended = {"status": status, "reason": reason, "last": found[-1], "best": max(found)}
        return {**self.head(), **ended, "updates": watched.step, "curve": curve}

    def policy(self) -> Callable[[Tensor, None], Tensor]:
        """The last policy: (observations [n, obs_dim], None) -> actions."""
        saved = self.run.load_checkpoint()
        if saved is None:
            raise FileNotFoundError(f"{self.run.folder}: no checkpoint; train() first")
        learner = self._made().learner
        learner.load_state_dict(saved["learner"])
        return learner.actor

    def _made(self) -> _Made:
        algorithm, settings, seed = self.algorithm, self.settings, self.seed
        if algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm must be one of {', '.join(get_args(Algorithm))}, got {algorithm!r}")
        config = getattr(settings, parts_of(algorithm)[0])
        count = config.envs if algorithm == "tdmpc2" else settings.envs or env_spec(self.task).count
        env = TrainingEnv(self.task, count, stiffness=self.stiffness, seed=seed, device=self.device)
        if algorithm == "shac":
            return _Made(SHAC(env, config, seed=seed), env, config.updates, config.horizon * count)
        if algorithm in ("ppo", "sac"):
            from pwmlib.baselines.sb3 import SB3Learner

            return _Made(SB3Learner(algorithm, env, config, seed=seed), env, config.updates, config.steps * count)
        given, before = self._replay(count) if algorithm in ("pwm", "pwm_offline") else (None, None)
        if algorithm == "pwm_offline":
            learner = OfflinePWM(given, config, seed=seed, device=self.device)
            return _Made(learner, env, config.policy.updates, 0, before)
        before = before or Spent(env_steps=config.random_steps * count)
        if algorithm == "tdmpc2":
            return _Made(OnlineTDMPC2(env, config, seed=seed), env, config.updates, config.steps * count, before)
        if algorithm == "pwm":
            everything = given.capacity + config.actor_critic.updates * config.actor_critic.horizon
            config = replace(config, replay_steps=max(config.replay_steps, given.capacity, min(everything, LARGEST_REPLAY // count)))
        learner = OnlinePWM(env, config, seed=seed, given=given)
        return _Made(learner, env, config.actor_critic.updates, config.actor_critic.horizon * count, before)

    def _replay(self, count: int) -> tuple[Replay, Spent]:
        """Every step of a SHAC run of `count` environments from its beginning, as a resumable run: the trajectories of varying quality that
        PWM starts from; and what they cost."""
        config = self.settings.replay
        params = {"task": self.task, "seed": self.seed, "shac": config, "stiffness": self.stiffness, "count": count}
        run = Run(self.runs_dir, "shac_replay", f"{self.task}-seed{self.seed}", params)
        env = DifferentiableEnv(self.task, count, stiffness=self.stiffness, seed=self.seed, device=self.device)
        replay = Replay(config.updates * config.horizon, count, env.obs_dim, env.action_dim)

        def record(roll: Rollout) -> None:
            for row in zip(roll.states, roll.actions, roll.rewards, roll.reached, roll.terminated, roll.truncated, strict=True):
                replay.add(*(x.cpu() for x in row))

        def work(run: Run) -> dict[str, float]:
            shac = SHAC(env, config, seed=self.seed, record=record)
            watched = Watched(Together(shac=shac, replay=replay), math.inf, Spent())
            train(run, watched, config.updates, checkpoint_every=max(1, config.updates // 3))
            return {"env_steps": len(replay) * count, **watched.cost()}

        spent = run.execute(work)
        replay.load_state_dict(run.load_checkpoint()["learner"]["replay"])
        return replay, Spent(**spent)


@dataclass(frozen=True)
class _Made:
    """A learner, its policy updates, the real steps that one costs, and what was spent before."""

    learner: Learner
    env: TrainingEnv
    updates: int
    steps: int
    before: Spent = Spent()
