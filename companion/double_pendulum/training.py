"""Settings of notebook 01, and what is trained for it: a policy by SHAC, world models of its replay."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion.running.parameters import read_scales
from companion.running.runs import Run, Together, single_thread, train
from pwmlib.data import SliceSampler
from pwmlib.data.checkpoints import load_state, save_state
from pwmlib.evaluation.predictions import held_out_fit
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer, WorldModelTraining
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.optimizer.imagination import Rollout
from pwmlib.optimizer.shac import SHAC, SHACConfig
from pwmlib.settings import Count, Counts, Fraction, Several, settings
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.registry import ENVS
from pwmlib.sim.training_env import evaluate_policy

ENV = "double_pendulum"


@settings
class DoublePendulumScale:
    """All numbers of one scale of notebook 01."""

    shac_seeds: Count = 3
    shac: SHACConfig = SHACConfig()
    model: WorldModelConfig = WorldModelConfig()
    training: WorldModelTraining = WorldModelTraining()
    """The training of both models; only the horizon differs."""
    train_horizons: Counts = (3, 16)
    envs: Count = 64
    samples: Several = 100
    """N, Monte-Carlo samples of every gradient."""
    horizons: Several = 50
    resamples: Count = 200
    milestones: tuple[Fraction, ...] = (0.1, 0.3, 1.0)
    """Shares of the models' training at which a copy is kept, to see gradients become right (or not) with training time."""
    checkpoint_every: Count = 50


DOUBLE_PENDULUM_SCALES = read_scales(Path(__file__).with_name("scales.toml"), DoublePendulumScale)


class _Stream:
    """Everything that a learner sees and does, [steps, environments, 14]."""

    def __init__(self) -> None:
        self.rolls: list[Tensor] = []

    def record(self, roll: Rollout) -> None:
        self.rolls.append(torch.cat([roll.states, roll.reached, roll.actions, roll.rewards[..., None]], -1))

    def state_dict(self) -> Tensor:
        return torch.cat(self.rolls) if self.rolls else torch.zeros(0)

    def load_state_dict(self, state: Tensor) -> None:
        self.rolls = [state] if len(state) else []


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
        stream, env = _Stream(), DifferentiableEnv(ENV, scale.envs, seed=seed)
        shac = SHAC(env, scale.shac, seed=seed, spread=False, record=stream.record)
        train(run, Together(learner=shac, stream=stream), scale.shac.updates, checkpoint_every=scale.checkpoint_every, log_every=10)
        rows = replay_rows(torch.cat(stream.rolls), length=ENVS[ENV].episode_length)
        np.save(run.folder / "replay.npy", rows)
        returns = evaluate_policy(shac.actor, ENV)
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
    kept, held_out = ([r[(np.arange(len(r)) % 10 == 9) == out] for r in rows] for out in (False, True))
    sizes = SimpleNamespace(obs_dim=6, action_dim=1)  # what SliceSampler wants of a task
    return SliceSampler([sizes], [kept]), SliceSampler([sizes], [held_out])


def _new_model(scale: DoublePendulumScale, data: SliceSampler | None = None) -> WorldModel:
    """An untrained model that standardises observations as those of the data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WorldModel(6, 1, config=scale.model)
    if data is not None and scale.training.standardise_obs:
        mean, std, *_ = data.statistics()  # rewards are learned as they are
        model.set_statistics(mean, std)
    return model


def load_policy(scale: DoublePendulumScale, folder: str) -> Actor:
    """The SHAC policy of a run's folder."""
    actor = Actor(6, 1, hidden=scale.shac.actor_hidden, standardise=True)
    actor.load_state_dict(Run.checkpoint_in(folder)["learner"]["actor"])
    return actor


def load_model(scale: DoublePendulumScale, folder: str, step: int | None = None) -> FrozenWorldModel:
    """The frozen world model of a run's folder, with rewards in the environment's units. step: one of `milestone_updates`."""
    model = _new_model(scale)
    model.load_state_dict((load_state(Path(folder) / f"model-{step}.safetensors") if step else Run.checkpoint_in(folder))["model"])
    return FrozenWorldModel(model, reward_symexp=True)
