"""The study of Section 3.2 and App. B: variance and ESNR of policy gradients against the horizon, true dynamics and learned models.

Stages, each resumable: SHAC on the differentiable double pendulum, its replay kept; two world models of that replay, trained over 3 and
over 16 steps; then one sweep over all horizons for all worlds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion.running.job import Job
from companion.running.jobs import run_jobs
from companion.running.runs import Run, single_thread, train
from pwmlib.data import SliceSampler
from pwmlib.data.checkpoints import load_state, save_state, write_atomic
from pwmlib.estimators import PolicyGradients, first_order, first_order_along, horizon_table, zeroth_order
from pwmlib.model.dynamics import Dynamics
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining, held_out_fit
from pwmlib.model.world_model import WORLD_MODEL_SIZES, WorldModel, WorldModelConfig
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.optimizer.imagination import Rollout
from pwmlib.optimizer.shac import SHAC, SHACConfig, evaluate_policy
from pwmlib.settings import Count, Counts, Fraction, Several, settings
from pwmlib.sim.env import DifferentiableEnv, EnvDynamics
from pwmlib.sim.registry import ENVS

__all__ = ["DOUBLE_PENDULUM_SCALES", "DoublePendulumScale", "Study", "perturbation_growth", "run_study"]

ENV = "double_pendulum"
FEEDBACK = "trained policy, feedback"
"""The policy reacts inside each world: on observations in the simulator, a copy on latents in a model. Other parameters, other units of
the variance; the ESNR has none."""
REWARD_UNITS = "trained policy, same actions, reward in the released script's units"
"""A setting of the true dynamics only: the reward scaled, which must change the variance and no ESNR."""


@settings
class DoublePendulumScale:
    """All numbers of one scale of notebook 01."""

    shac_seeds: Count
    shac: SHACConfig
    model: WorldModelConfig
    training: WorldModelTraining
    """Of both models; only the horizon differs."""
    train_horizons: Counts = (3, 16)
    envs: Count = 64
    samples: Several = 100
    """N, Monte-Carlo samples of every gradient."""
    horizons: Several = 50
    resamples: Count = 200
    milestones: tuple[Fraction, ...] = (0.1, 0.3, 1.0)
    """Shares of the models' training at which a copy is kept, to see gradients become right (or not) with training time."""
    checkpoint_every: Count = 50


_SHAC = SHACConfig(updates=300, horizon=48, actor_hidden=(64, 64), critic_hidden=(128, 64), reward_scale=0.02)
_SMALL = WorldModelConfig(latent_dim=64, encoder_hidden=(128,), dynamics_hidden=(128, 128), reward_hidden=(128, 128), task_dim=0)
_TRAINING = WorldModelTraining(updates=500, batch=128, lr=1e-3, final_lr=1e-4, standardise_obs=True)

DOUBLE_PENDULUM_SCALES = {
    "quick": DoublePendulumScale(2, replace(_SHAC, updates=60), _SMALL, _TRAINING, resamples=100),
    "laptop": DoublePendulumScale(
        3,
        _SHAC,
        replace(WORLD_MODEL_SIZES["5M"], task_dim=0),
        replace(_TRAINING, updates=3000, batch=256, lr=3e-4, final_lr=3e-5),
    ),
    "paper": DoublePendulumScale(
        3,
        replace(_SHAC, updates=40_000, actor_hidden=(400, 200, 100), critic_hidden=(400, 200)),
        replace(WORLD_MODEL_SIZES["5M"], task_dim=0),
        replace(_TRAINING, updates=100_000, batch=1024, lr=3e-4, final_lr=None),
    ),
}
"""At `paper` each of the 3 runs keeps its last 8000 episodes of 240 steps (`replay_rows`), 24 000 in all; never run, and the whole stream
of a run, some 7 GB, would be held in memory."""


@dataclass(frozen=True)
class _Sizes:
    """What SliceSampler wants of a task."""

    obs_dim: int = 6
    action_dim: int = 1


class _RecordedSHAC:
    """SHAC with everything that it sees, as one resumable learner."""

    def __init__(self, scale: DoublePendulumScale, seed: int):
        self.stream: list[Tensor] = []
        env = DifferentiableEnv(ENV, scale.envs, seed=seed)
        self.learner = SHAC(env, scale.shac, seed=seed, spread=False, record=self._record)

    def _record(self, roll: Rollout) -> None:
        self.stream.append(torch.cat([roll.states, roll.reached, roll.actions, roll.rewards[..., None]], -1))

    @property
    def step(self) -> int:
        return self.learner.step

    def update(self) -> dict[str, float]:
        return self.learner.update()

    def state_dict(self) -> dict[str, Any]:
        return {"learner": self.learner.state_dict(), "stream": torch.cat(self.stream) if self.stream else torch.zeros(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.stream = [state["stream"]] if len(state["stream"]) else []


def replay_rows(stream: Tensor, *, length: int, most: int = 8000) -> np.ndarray:
    """Whole episodes as rows (observation, action that led there, its reward), [episodes, length + 1, 8]; the last `most` of them.

    stream: [T, E, obs 6 + final obs 6 + action + reward] of environments that all began together.
    """
    blocks = stream[: len(stream) // length * length].view(-1, length, *stream.shape[1:]).permute(0, 2, 1, 3).flatten(0, 1)
    rows = torch.zeros(len(blocks), length + 1, 8)
    rows[:, :-1, :6], rows[:, -1, :6] = blocks[..., :6], blocks[:, -1, 6:12]
    rows[:, 1:, 6], rows[:, 1:, 7] = blocks[..., 12], blocks[..., 13]
    return rows[-most:].numpy()


def shac_job(scale: DoublePendulumScale, seed: int, runs_dir: str) -> dict[str, Any]:
    """One SHAC run: the policy and its replay in the run's folder; returns the deterministic return and where they are."""
    run = Run(runs_dir, "shac", f"seed{seed}", {"scale": [scale.shac, scale.envs], "seed": seed})

    def work(run: Run) -> dict[str, Any]:
        learner = _RecordedSHAC(scale, seed)
        train(run, learner, scale.shac.updates, checkpoint_every=scale.checkpoint_every, log_every=10)
        rows = replay_rows(torch.cat(learner.stream), length=ENVS[ENV].episode_length)
        buffer = io.BytesIO()
        np.save(buffer, rows)
        write_atomic(run.folder / "replay.npy", buffer.getbuffer())
        returns = evaluate_policy(learner.learner.actor, ENV)
        return {"seed": seed, "return": float(returns.mean()), "episodes": len(rows), "folder": str(run.folder)}

    with single_thread():
        return run.execute(work)


def model_job(scale: DoublePendulumScale, horizon: int, replays: list[str], runs_dir: str) -> dict[str, Any]:
    """One world model of all replays, trained over `horizon` steps; returns its fit on every tenth episode, held out."""
    training = replace(scale.training, horizon=horizon)
    params = {"model": scale.model, "training": training, "replays": [Path(r).name for r in replays]}
    run = Run(runs_dir, "world_model", f"H{horizon}", params)

    def work(run: Run) -> dict[str, Any]:
        data, held_out = _split(replays)
        trainer = WorldModelTrainer(_new_model(scale, data), data, training)
        kept = set(milestone_updates(scale))

        def keep(step: int) -> None:
            if step in kept:
                save_state(run.folder / f"model-{step}.safetensors", {"model": trainer.model.state_dict()})

        train(run, trainer, training.updates, checkpoint_every=scale.checkpoint_every, log_every=10, progress=keep)
        return {"horizon": horizon, **held_out_fit(trainer.model, held_out), "folder": str(run.folder)}

    with single_thread():
        return run.execute(work)


def milestone_updates(scale: DoublePendulumScale) -> list[int]:
    """The updates after which a copy of each world model is kept; the last is the end of training."""
    return sorted({max(1, round(share * scale.training.updates)) for share in (*scale.milestones, 1.0)})


def _split(replays: list[str]) -> tuple[SliceSampler, SliceSampler]:
    """Training episodes, and every tenth one held out."""
    rows = [np.load(Path(folder) / "replay.npy", allow_pickle=False) for folder in replays]
    kept, held = [], []
    for r in rows:
        out = np.arange(len(r)) % 10 == 9
        kept.append(r[~out])
        held.append(r[out])
    return SliceSampler([_Sizes()], [kept]), SliceSampler([_Sizes()], [held])


def _new_model(scale: DoublePendulumScale, data: SliceSampler) -> WorldModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WorldModel(6, 1, config=scale.model)
    if scale.training.standardise_obs:
        mean, std, *_ = data.statistics()  # rewards are learned as they are
        model.set_statistics(mean, std)
    return model


class ReleasedUnits(EnvDynamics):
    """The simulator with r / 21554 + 1, as the released script has it."""

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state) / 21554 + 1.0


class ObservingPolicy(nn.Module):
    """A policy on observations as a policy on the simulator's states."""

    def __init__(self, world: EnvDynamics, policy: nn.Module):
        super().__init__()
        self.world, self.policy = world, policy

    @property
    def std(self) -> Tensor:
        """Of the policy."""
        return self.policy.std

    def mean(self, state: Tensor) -> Tensor:
        """Of the policy."""
        return self.policy.mean(self.world.observe(state))

    def forward(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.policy(self.world.observe(state), noise)


@dataclass
class Study:
    """The trained parts and what was measured."""

    shac: pd.DataFrame
    """One row a SHAC run."""
    models: pd.DataFrame
    """One row a world model."""
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    """setting, world, estimator, horizon and the statistics with intervals."""
    growth: pd.DataFrame = field(default_factory=pd.DataFrame)
    """world, horizon, how much a small disturbance of the start has grown (median and quartiles over samples)."""


def run_study(scale: DoublePendulumScale, runs_dir: str | Path, *, workers: int = 2, progress: bool = True) -> Study:
    """All stages; finished ones are read from `runs_dir`."""
    base = {"scale": scale, "runs_dir": str(runs_dir)}
    seeds = [Job(f"seed {s}", shac_job, {**base, "seed": s}) for s in range(scale.shac_seeds)]
    shac = _values(run_jobs(seeds, workers=workers, progress=progress, description="SHAC"))
    replays = [row["folder"] for row in shac]
    jobs = [Job(f"H = {h}", model_job, {**base, "horizon": h, "replays": replays}) for h in reversed(scale.train_horizons)]
    models = _values(run_jobs(jobs, workers=workers, progress=progress, description="world models"))[::-1]
    study = Study(pd.DataFrame(shac), pd.DataFrame(models))
    best = max(shac, key=lambda row: row["return"])
    params = {"scale": scale, "folders": [Path(row["folder"]).name for row in (*shac, *models)]}
    run = Run(runs_dir, "sweep", "sweep", params)

    def work(run: Run) -> dict[str, Any]:
        table, growth = sweep(scale, best["folder"], {row["horizon"]: row["folder"] for row in models}, replays)
        for name, frame in (("table", table), ("growth", growth)):
            write_atomic(run.folder / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
        return {}

    with single_thread():
        run.execute(work)
    study.table, study.growth = (pd.read_csv(run.folder / f"{name}.csv") for name in ("table", "growth"))
    return study


def _values(results: list) -> list[dict[str, Any]]:
    for result in results:
        if result.error:
            raise RuntimeError(f"{result.name}: {result.error}")
    return [result.value for result in results]


def load_policy(scale: DoublePendulumScale, folder: str) -> Actor:
    """The SHAC policy of a run's folder."""
    actor = Actor(6, 1, hidden=scale.shac.actor_hidden, standardise=True)
    actor.load_state_dict(Run.checkpoint_in(folder)["learner"]["actor"])
    return actor


def load_model(scale: DoublePendulumScale, folder: str, replays: list[str], step: int | None = None) -> FrozenWorldModel:
    """The frozen world model of a run's folder, with rewards in the environment's units. step: one of `milestone_updates`."""
    model = _new_model(scale, _split(replays)[0])
    model.load_state_dict((load_state(Path(folder) / f"model-{step}.safetensors") if step else Run.checkpoint_in(folder))["model"])
    return FrozenWorldModel(model, reward_symexp=True)


def sweep(
    scale: DoublePendulumScale, shac_folder: str, model_folders: dict[int, str], replays: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Statistics of every world, setting and horizon; and the growth of disturbances."""
    n, steps = scale.samples, scale.horizons
    g = torch.Generator().manual_seed(0)
    true, policy = EnvDynamics(ENV, n, seed=1), load_policy(scale, shac_folder)
    worlds = {f"model, H = {h}": load_model(scale, folder, replays) for h, folder in model_folders.items()}
    start, noise = true.reset(), torch.randn(steps, n, 1, generator=g)
    obs0 = true.observe(start)
    on_states = ObservingPolicy(true, policy)
    found: list[tuple[str, str, PolicyGradients]] = []

    seen, acted = followed(true, policy, start, noise)
    starts = {"true": start, **{name: world.encode(obs0) for name, world in worlds.items()}}
    everything: dict[str, Dynamics] = {"true": true, **worlds}
    for name, world in everything.items():
        along = first_order_along(world, starts[name], acted, policy=policy, seen=seen, noise=noise)
        found.append(("trained policy, same actions", name, along))
    found.append(
        (REWARD_UNITS, "true", first_order_along(ReleasedUnits(ENV, n, seed=1), start, acted, policy=policy, seen=seen, noise=noise))
    )
    found.append((FEEDBACK, "true", first_order(true, on_states, start, noise)))
    found.append(("trained policy, same actions", "true, zeroth order", zeroth_order(true, on_states, start, noise)))
    data = _split(replays)[0]
    for name, world in worlds.items():
        copy = clone_policy(policy, world, data, scale.shac.actor_hidden)
        found.append((FEEDBACK, name, first_order(world, copy, starts[name], noise)))
    last = list(worlds)[-1]
    for name, world in worlds.items():
        random = random_policy(world, scale.shac.actor_hidden)
        along = first_order(world, random, starts[name], noise, detach_policy_input=True)
        found.append(("random policy, own actions", name, along))
        if name == last:  # as released: on the true dynamics the last model's encoder reads the observation
            latents, taken = followed(true, random, start, noise, read=world.encode)
            along = first_order_along(true, start, taken, policy=random, seen=latents, noise=noise)
            found.append(("random policy, own actions", "true", along))
    tables = [horizon_table(x, resamples=scale.resamples).assign(setting=s, world=w) for s, w, x in found]
    growth = [perturbation_growth(world, starts[name], acted).assign(world=name) for name, world in everything.items()]
    return pd.concat(tables, ignore_index=True), pd.concat(growth, ignore_index=True)


@torch.no_grad()
def followed(
    world: EnvDynamics, policy: nn.Module, start: Tensor, noise: Tensor, *, read: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """What a policy sees, [T, N, ...], and does, [T, N, 1], in the simulator. read: maps the observation to what it sees."""
    state, seen, actions = start, [], []
    for step_noise in noise:
        obs = world.observe(state)
        seen.append(obs if read is None else read(obs))
        actions.append(policy(seen[-1], step_noise))
        state = world.advance(state, actions[-1])
    return torch.stack(seen), torch.stack(actions)


def random_policy(world: FrozenWorldModel, hidden: tuple[int, ...], seed: int = 0) -> Actor:
    """A freshly initialised policy on latents, as the released script uses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Actor(world.state_dim, 1, hidden=hidden)


def clone_policy(policy: Actor, world: FrozenWorldModel, data: SliceSampler, hidden: tuple[int, ...], updates: int = 400) -> Actor:
    """A policy on latents that acts like the given one on observations (regression of the means on replay states)."""
    copy, rng = random_policy(world, hidden), np.random.default_rng(0)
    with torch.no_grad():
        copy.log_std.copy_(policy.actor.log_std)
    optimiser = torch.optim.Adam(copy.mean.parameters(), lr=2e-3)
    for step in range(updates):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / updates)
        obs = data.start_observations(0, 256, rng)
        with torch.no_grad():
            z, target = world.encode(obs), torch.tanh(policy.mean(obs))
        optimiser.zero_grad()
        (torch.tanh(copy.mean(z)) - target).square().mean().backward()
        optimiser.step()
    return copy


@torch.no_grad()
def perturbation_growth(world: Dynamics, start: Tensor, actions: Tensor, *, size: float = 1e-3, seed: int = 0) -> pd.DataFrame:
    """|difference of two rollouts| / |difference of their starts| under the same actions, one row a horizon.

    A random direction of length `size` times the root mean square of the start states; float32 limits how small it may be.
    """
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
    direction = direction / direction.norm(dim=-1, keepdim=True) * size * start.square().sum(-1).mean().sqrt()
    one, other, rows = start, start + direction, []
    initial = (other - one).norm(dim=-1)
    for t, action in enumerate(actions, 1):
        one, other = world.advance(one, action), world.advance(other, action)
        ratio = (other - one).norm(dim=-1) / initial
        low, middle, high = ratio.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        rows.append({"horizon": t, "growth": middle, "growth_low": low, "growth_high": high})
    return pd.DataFrame(rows)
