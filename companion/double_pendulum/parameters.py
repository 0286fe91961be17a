"""Parameters of notebook 01."""

from dataclasses import replace

import pandas as pd
from pydantic import Field

from companion.double_pendulum.study import Study, run_study
from companion.double_pendulum.training import DOUBLE_PENDULUM_SCALES, DoublePendulumScale
from companion.running.jobs import default_workers
from companion.running.notebook import OnTheCPU
from companion.running.parameters import override

from .study import fidelity_study


class DoublePendulumParameters(OnTheCPU):
    """notebooks/01_double_pendulum.ipynb."""

    notebook = "01_double_pendulum"
    horizons: int | None = Field(
        None, ge=2, le=200, description="the longest horizon of the sweep, at least 2 for a curve; None means the scale's number"
    )
    samples: int | None = Field(
        None, ge=2, le=100_000, description="N, Monte-Carlo samples of a gradient, at least 2 for a variance; None means the scale's number"
    )
    shac_seeds: int | None = Field(None, ge=1, le=100, description="the number of SHAC runs; None means the scale's number")
    workers: int | None = Field(None, ge=1, le=1024, description="the number of processes; None means one per core")

    def scaled(self) -> DoublePendulumScale:
        """The scale's numbers with this notebook's changes."""
        scale = override(DOUBLE_PENDULUM_SCALES[self.scale], self.overrides)
        given = {name: getattr(self, name) for name in ("horizons", "samples", "shac_seeds") if getattr(self, name)}
        return replace(scale, **given)

    def study(self, *, progress: bool = True) -> Study:
        """Run (or read) the study of these parameters."""
        return run_study(
            self.scaled(), self.runs_folder() / "double_pendulum", workers=self.workers or default_workers(), progress=progress
        )

    def fidelity(self, study: Study) -> pd.DataFrame:
        """Gradients of the study's models against the simulator's."""
        return fidelity_study(self.scaled(), study, self.runs_folder() / "double_pendulum")
