"""Parameters of notebook 01."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from pydantic import Field, field_validator, model_validator

from companion.double_pendulum.study import Study, run_study
from companion.double_pendulum.training import DOUBLE_PENDULUM_SCALES, DoublePendulumScale
from companion.running.jobs import default_workers
from companion.running.notebook import OnTheCPU
from companion.running.parameters import override

from .fidelity import fidelity_study

__all__ = ["DoublePendulumParameters"]


class DoublePendulumParameters(OnTheCPU):
    """notebooks/01_double_pendulum.ipynb."""

    notebook = "01_double_pendulum"
    horizons: int = Field(0, ge=0, le=200, description="the longest horizon of the sweep, at least 2; 0 means the scale's number")
    samples: int = Field(0, ge=0, le=100_000, description="N, Monte-Carlo samples of a gradient, at least 2; 0 means the scale's number")
    shac_seeds: int = Field(0, ge=0, le=100, description="the number of SHAC runs; 0 means the scale's number")
    workers: int = Field(0, ge=0, le=1024, description="the number of processes; 0 means one per core")

    @field_validator("horizons", "samples")
    @classmethod
    def _more_than_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("a variance and a curve need at least 2")
        return value

    @model_validator(mode="after")
    def _overrides_exist(self) -> DoublePendulumParameters:
        self.scaled()
        return self

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
