"""The optimiser where the model is perfect: closed-form cartpole and pendulum behind the world-model protocol.

A policy learner that fails here has a fault of its own; one that succeeds here and fails on a learned model points at the model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from companion.reporting.style import WIDTH
from companion.running.runs import Run, train
from pwmlib.estimators.trajectories import open_loop, sample_trajectories
from pwmlib.optimizer.imagination import imagine
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.sim.closed_form import CartpoleSwingup, PendulumSwingup

_SMALL = {"actor_hidden": (128, 64), "critic_hidden": (128, 64)}


@dataclass(frozen=True)
class Setting:
    """A world, where imagined rollouts start, and the learner's configuration."""

    world: str
    arguments: dict[str, Any]
    starts: str
    """"broad" and others: a start kind of the world; "random_policy": states that a uniformly random policy visits from its reset."""
    policy: PWMConfig
    evaluation_start: str = "hanging"

    def make(self) -> CartpoleSwingup | PendulumSwingup:
        return {"cartpole": CartpoleSwingup, "pendulum": PendulumSwingup}[self.world](**self.arguments)


def _pendulum(arguments: dict[str, Any], starts: str = "broad", **policy: Any) -> Setting:
    return Setting("pendulum", arguments, starts, PWMConfig(updates=600, **{**_SMALL, **policy}), "suite")


SETTINGS: dict[str, Setting] = {
    "cartpole, broad starts": Setting("cartpole", {}, "broad", PWMConfig(updates=500)),
    "cartpole, states of a random policy": Setting("cartpole", {}, "random_policy", PWMConfig(updates=500)),
    "pendulum, sparse reward smoothed": _pendulum({}),
    "pendulum, sparse smoothed, gamma 0.995": _pendulum({}, gamma=0.995),
    "pendulum, sparse smoothed, H = 48": _pendulum({}, horizon=48),
    "pendulum, dense reward": _pendulum({"reward_shape": "cosine"}),
    "pendulum, dense reward, hanging starts": _pendulum({"reward_shape": "cosine"}, "hanging"),
}
"""The recorded settings; cartpole with the paper's networks, pendulum with (128, 64) ones."""


World = CartpoleSwingup | PendulumSwingup


def evaluate(world: World, policy: Callable[[Tensor, None], Tensor], start: str, *, episodes: int = 64) -> float:
    """Mean return of the deterministic policy over whole episodes of the true reward, in [0, 1000]."""
    begin = world.reset(episodes, torch.Generator().manual_seed(1_000_000), start=start)
    silent = torch.zeros(world.episode_steps, episodes, world.action_dim)
    path = sample_trajectories(world, lambda state, _: policy(state, None), begin, silent)
    rewards = world.true_reward(path.states[1:]) if hasattr(world, "true_reward") else path.rewards
    return float(sum(rewards).mean())


def start_states(world: World, kind: str, *, seed: int = 0) -> Callable[[int, torch.Generator], Tensor]:
    """Sampler of start states. "random_policy": 64 episodes of uniform actions from the hanging reset, visited states pooled."""
    if kind != "random_policy":
        return lambda batch, generator: world.reset(batch, generator, start=kind)
    generator = torch.Generator().manual_seed(seed)
    begin, actions = world.reset(64, generator, start="hanging"), torch.rand(world.episode_steps, 64, world.action_dim, generator=generator)
    pool = open_loop(world, begin, 2 * actions - 1).states[1:].flatten(0, 1)
    return lambda batch, generator: pool[torch.randint(len(pool), (batch,), generator=generator)]


def run_setting(name: str, seed: int, runs_dir: str) -> list[dict[str, Any]]:
    """Extract a policy in one setting with one seed. Returns rows (setting, train_seed, step, return); resumable."""
    setting, every = SETTINGS[name], 50
    world = setting.make()

    def work(run: Run) -> list[dict[str, Any]]:
        learner = PWM(world, start_states(world, setting.starts, seed=seed), setting.policy, seed=seed)

        def evaluated(step: int) -> dict[str, Any]:
            return {"return": evaluate(world, learner.actor, setting.evaluation_start)}

        curve = [{"step": 0, **evaluated(0)}]
        how = {"checkpoint_every": 100, "evaluate_every": every, "log_every": every}
        train(run, learner, setting.policy.updates, evaluate=evaluated, **how)
        return [{"setting": name, "train_seed": seed, "step": r["step"], "return": r["return"]} for r in curve + run.rows]

    label = "".join(c if c.isalnum() else "-" for c in name)
    params = {"setting": setting, "seed": seed, "evaluate_every": every}
    return Run(runs_dir, "perfect_model", f"{label}-seed{seed}", params).execute(work)


def gradient_reach() -> pd.DataFrame:
    """What a first-order gradient over 16 steps sees of the pendulum's reward, by start angle.

    Mean norm of d(sum of rewards)/d(actions) along rollouts of small random actions from rest, for the smoothed sparse and the
    dense reward. Columns: reward, angle_deg (from upright), gradient_norm.
    """
    rows, horizon, samples = [], 16, 256
    for shape in ("sigmoid", "cosine"):
        world = PendulumSwingup(reward_shape=shape)
        for degrees in range(0, 181, 15):
            generator = torch.Generator().manual_seed(0)
            theta = torch.full((samples,), float(np.radians(degrees)))
            state = torch.stack([theta.cos(), theta.sin(), torch.zeros(samples)], -1)
            noise = torch.randn(horizon, samples, 1, generator=generator)
            actions = torch.zeros(horizon, samples, 1, requires_grad=True)
            step = iter(actions)
            rewards = imagine(world, lambda s, eps, step=step: torch.tanh(next(step) + 0.3 * eps), state, noise=noise).rewards
            (gradient,) = torch.autograd.grad(rewards.sum(), actions)
            rows.append({"reward": shape, "angle_deg": degrees, "gradient_norm": float(gradient.square().sum((0, 2)).sqrt().mean())})
    return pd.DataFrame(rows)


def perfect_model_curves(table: pd.DataFrame) -> Figure:
    """Return where the model is perfect against policy updates, one panel a world: thin lines are seeds, thick ones medians."""
    worlds = {"cartpole": "cartpole swing-up", "pendulum": "pendulum swing-up (return of the true, sparse reward)"}
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.9), sharey=True, layout="constrained")
    for ax, (world, title) in zip(axes, worlds.items(), strict=True):
        part = table[table["setting"].str.startswith(world)]
        settings = list(dict.fromkeys(part["setting"]))
        for colour, setting in zip(sns.color_palette("colorblind", len(settings)), settings, strict=True):
            curves = part[part["setting"] == setting].pivot(index="step", columns="train_seed", values="return")
            ax.plot(curves, color=colour, lw=0.6, alpha=0.5)
            label = f"{setting.removeprefix(world + ', ')} ({curves.shape[1]} seeds)"
            ax.plot(curves.median(axis=1), color=colour, lw=2.4, label=label)
        ax.set(xlabel="policy updates", ylim=(0, 1000), title=title)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)
    axes[0].set_ylabel("return of 1000")
    return figure
