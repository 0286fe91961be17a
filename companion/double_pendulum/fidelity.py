"""Do the learned double pendulums' gradients point where the true one's do? Against horizon, training time and kind of state."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from companion.double_pendulum.study import Study
from companion.double_pendulum.sweep import ObservingPolicy
from companion.double_pendulum.training import ENV, DoublePendulumScale, load_model, load_policy, milestone_updates
from companion.running.runs import Run, single_thread
from pwmlib.data.checkpoints import write_atomic
from pwmlib.estimators import gradient_fidelity
from pwmlib.estimators.trajectories import open_loop, sample_trajectories
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.sim.env import EnvDynamics

KINDS = ("starts", "visited by the policy", "visited by random actions", "anywhere")
"""Start states of the compared rollouts: of an episode; 60 steps later under the trained policy, with its noise, or under uniform random
actions; and both angles uniform over the circle with rates of up to 8 rad/s."""

WARM_UP = 60
HORIZONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 50)


def fidelity_study(scale: DoublePendulumScale, study: Study, runs_dir: str | Path) -> pd.DataFrame:
    """`gradient_fidelity` of both world models of `run_study` at each of `milestone_updates`, for each of `KINDS`.

    The same N states and the same actions for model and simulator (the policy's; uniform random ones after "random actions" and
    "anywhere"), rewards in the same units. Adds the columns world and updates.
    """
    best = study.shac.loc[study.shac["return"].idxmax()]
    folders = dict(zip(study.models["horizon"], study.models["folder"], strict=True))
    names = [Path(folder).name for folder in (*study.shac["folder"], *folders.values())]
    run = Run(runs_dir, "fidelity", "fidelity", {"samples": scale.samples, "horizons": scale.horizons, "folders": names})

    def work(run: Run) -> dict[str, Any]:
        table = _measure(scale, load_policy(scale, best["folder"]), folders, list(study.shac["folder"]))
        write_atomic(run.folder / "table.csv", table.to_csv(index=False, float_format="%.6g"))
        return {}

    with single_thread():
        run.execute(work)
    return pd.read_csv(run.folder / "table.csv")


def _measure(scale: DoublePendulumScale, policy: Actor, folders: dict[int, str], replays: list[str]) -> pd.DataFrame:
    true = EnvDynamics(ENV, scale.samples, seed=2)
    rollouts = {kind: _states_and_actions(true, policy, kind, scale.horizons) for kind in KINDS}
    horizons = [h for h in HORIZONS if h <= scale.horizons]
    tables = []
    for horizon, folder in folders.items():
        for updates in milestone_updates(scale):
            model = load_model(scale, folder, replays, updates)
            for kind, (start, actions) in rollouts.items():
                latents = model.encode(true.observe(start))
                table = gradient_fidelity(model, true, latents, start, actions, horizons=horizons, kind=kind)
                tables.append(table.assign(world=f"model, H = {horizon}", updates=updates))
    return pd.concat(tables, ignore_index=True)


def _states_and_actions(true: EnvDynamics, policy: Actor, kind: str, steps: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    """N states of a kind, [N, 4], and the actions of the rollout from them, [steps, N, 1]."""
    g = torch.Generator().manual_seed(seed)
    start, on_states = true.reset(), ObservingPolicy(true, policy)
    noise = torch.randn(WARM_UP + steps, true.count, 1, generator=g)
    random = 2 * torch.rand(WARM_UP + steps, true.count, 1, generator=g) - 1
    if kind == "anywhere":
        start = torch.tensor([torch.pi, torch.pi, 8.0, 8.0]) * (2 * torch.rand(true.count, 4, generator=g) - 1)
    elif kind == "visited by the policy":
        start = sample_trajectories(true, on_states, start, noise[:WARM_UP]).states[-1]
    elif kind == "visited by random actions":
        start = open_loop(true, start, random[:WARM_UP]).states[-1]
    follows = kind in ("starts", "visited by the policy")
    return start, sample_trajectories(true, on_states, start, noise[WARM_UP:]).actions if follows else random[WARM_UP:]
