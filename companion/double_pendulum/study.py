"""The study of Section 3.2 and App. B: variance and ESNR of policy gradients against the horizon, true dynamics and learned models.

Stages, each resumable: SHAC on the differentiable double pendulum, its replay kept; two world models of that replay, trained over 3 and
over 16 steps; then one sweep over all horizons for all worlds.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from companion.double_pendulum.sweep import sweep
from companion.double_pendulum.training import DoublePendulumScale, model_job, shac_job
from companion.running.jobs import Job, values_of
from companion.running.runs import Run, single_thread
from pwmlib.data.checkpoints import write_atomic


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
    shac = values_of(seeds, workers=workers, progress=progress, description="SHAC")
    replays = [row["folder"] for row in shac]
    jobs = [Job(f"H = {h}", model_job, {**base, "horizon": h, "replays": replays}) for h in reversed(scale.train_horizons)]
    models = values_of(jobs, workers=workers, progress=progress, description="world models")[::-1]
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
