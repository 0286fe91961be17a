"""The study of Section 3.2 and App. B: variance and ESNR of policy gradients against the horizon, true dynamics and learned models.

Stages, each resumable: SHAC on the differentiable double pendulum, its replay kept; two world models of that replay, trained over 3 and
over 16 steps; one sweep over all horizons for all worlds; and whether the models' gradients point where the true one's do, against horizon,
training time and kind of state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from companion.double_pendulum.sweep import ObservingPolicy, sweep
from companion.double_pendulum.training import ENV, DoublePendulumScale, load_model, load_policy, milestone_updates, model_job, shac_job
from companion.running.jobs import Job, values_of
from companion.running.runs import Run, single_thread
from pwmlib.estimators import gradient_fidelity
from pwmlib.estimators.trajectories import open_loop, sample_trajectories
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.sim.env import EnvDynamics


@dataclass(frozen=True)
class Study:
    """The trained parts and what was measured."""

    shac: pd.DataFrame
    """One row a SHAC run."""
    models: pd.DataFrame
    """One row a world model."""
    table: pd.DataFrame
    """setting, world, estimator, horizon and the statistics with intervals."""
    growth: pd.DataFrame
    """world, horizon, how much a small disturbance of the start has grown (median and quartiles over samples)."""


def run_study(scale: DoublePendulumScale, runs_dir: str | Path, *, workers: int = 2, progress: bool = True) -> Study:
    """All stages; finished ones are read from `runs_dir`."""
    base = {"scale": scale, "runs_dir": str(runs_dir)}
    seeds = [Job(f"seed {s}", shac_job, {**base, "seed": s}) for s in range(scale.shac_seeds)]
    shac = values_of(seeds, workers=workers, progress=progress, description="SHAC")
    replays = [row["folder"] for row in shac]
    jobs = [Job(f"H = {h}", model_job, {**base, "horizon": h, "replays": replays}) for h in reversed(scale.train_horizons)]
    models = values_of(jobs, workers=workers, progress=progress, description="world models")[::-1]
    params = {"scale": scale, "folders": [Path(row["folder"]).name for row in (*shac, *models)]}
    folders = {row["horizon"]: row["folder"] for row in models}
    shac, models = pd.DataFrame(shac), pd.DataFrame(models)
    tables = _once(Run(runs_dir, "sweep", "sweep", params), lambda: sweep(scale, _best(shac), folders, replays))
    return Study(shac, models, **tables)


def _best(shac: pd.DataFrame) -> str:
    return shac.loc[shac["return"].idxmax(), "folder"]


def _once(run: Run, make: Callable[[], dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Tables by name, made in a run and read from its folder."""

    def work(run: Run) -> None:
        for name, table in make().items():
            table.to_csv(run.folder / f"{name}.csv", index=False, float_format="%.6g")

    with single_thread():
        run.execute(work)
    return {path.stem: pd.read_csv(path) for path in run.folder.glob("*.csv")}


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
    names = [Path(folder).name for folder in (*study.shac["folder"], *study.models["folder"])]
    run = Run(runs_dir, "fidelity", "fidelity", {"samples": scale.samples, "horizons": scale.horizons, "folders": names})
    return _once(run, lambda: {"table": _fidelity(scale, study)})["table"]


def _fidelity(scale: DoublePendulumScale, study: Study) -> pd.DataFrame:
    true, policy = EnvDynamics(ENV, scale.samples, seed=2), load_policy(scale, _best(study.shac))
    rollouts = {kind: _states_and_actions(true, policy, kind, scale.horizons) for kind in KINDS}
    horizons = [h for h in HORIZONS if h <= scale.horizons]
    tables = []
    for row in study.models.itertuples():
        for updates in milestone_updates(scale):
            model = load_model(scale, row.folder, updates)
            for kind, (start, actions) in rollouts.items():
                latents = model.encode(true.observe(start))
                table = gradient_fidelity(model, true, latents, start, actions, horizons=horizons, kind=kind)
                tables.append(table.assign(world=f"model, H = {row.horizon}", updates=updates))
    return pd.concat(tables, ignore_index=True)


def _states_and_actions(true: EnvDynamics, policy: Actor, kind: str, steps: int) -> tuple[Tensor, Tensor]:
    """N states of a kind, [N, 4], and the actions of the rollout from them, [steps, N, 1]."""
    g = torch.Generator().manual_seed(3)
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
