"""Parameters of notebook 04."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from ..extraction_study import EXTRACTION_UPDATES, ExtractionStudy
from ..jobs import Engine, default_workers
from ..parameters import override
from ..scales import MULTITASK_SCALES, MultitaskScale
from ..single_task.ablations import ABLATIONS, ablation_experiments
from ..single_task.experiment import SingleTaskExperiment
from ..single_task.scales import settings_for
from ..tasks import MT80
from .common import Names, Robots, all_of

__all__ = ["AblationParameters"]


class AblationParameters(Robots):
    """notebooks/04_ablations.ipynb."""

    ablations: Names = Field(description=f"questions to answer: any of {', '.join(ABLATIONS)}")
    extraction_tasks: Names = Field(description='dm_control tasks of Fig. 8b, e.g. ["cartpole-swingup"]; empty means none')
    extraction_updates: list[int] = Field(description="updates of the world model at which they are compared; empty means the scale's")
    train_seeds: int = Field(ge=0, le=100, description="the number of training seeds of each variation; 0 means 1 at scale quick, else 3")
    engine: Engine = Field(description="where jobs run: local or ray")
    workers: int = Field(ge=0, le=1024, description="the number of processes; 0 means one per core")

    @field_validator("ablations")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return all_of(value, list(ABLATIONS), "ablation")

    @model_validator(mode="after")
    def _overrides_exist(self) -> AblationParameters:
        override(settings_for(self.scale, "hopper"), self._changes(False))
        self.extraction_settings()
        return self

    def _changes(self, extraction: bool) -> dict[str, Any]:
        """The overrides of Fig. 8b (without their prefix), or the others."""
        prefix = "extraction."
        return {k.removeprefix(prefix): v for k, v in self.overrides.items() if k.startswith(prefix) == extraction}

    def extraction_settings(self) -> MultitaskScale:
        """Sizes of Fig. 8b: the multi-task ones of `paper`, else those of `quick`, which suit a single task."""
        return override(MULTITASK_SCALES["paper" if self.scale == "paper" else "quick"], self._changes(True))

    @field_validator("extraction_tasks")
    @classmethod
    def _in_dm_control(cls, value: list[str]) -> list[str]:
        return all_of(value, [t.name for t in MT80 if t.suite == "dm_control"], "dm_control task") if value else []

    @field_validator("extraction_updates")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if any(n < 1 for n in value):
            raise ValueError("every number of updates must be at least 1")
        return value

    def extraction(self, *, progress: bool = True) -> ExtractionStudy:
        """The study of Fig. 8b of these parameters."""
        return ExtractionStudy(
            tasks=tuple(self.extraction_tasks),
            updates=tuple(self.extraction_updates) or EXTRACTION_UPDATES[self.scale],
            settings=self.extraction_settings(),
            runs_dir=self.runs_folder() / "extraction",
            data_dir=self.runs_folder() / "extraction" / "episodes",
            train_seeds=self.train_seeds or (1 if self.scale == "quick" else 3),
            device=self.device_name(),
            workers=self.workers or default_workers(),
            engine=self.engine,
            progress=progress,
        )

    def experiments(self, name: str, *, progress: bool = True) -> dict[str, SingleTaskExperiment]:
        """The experiments of one ablation, by variation."""
        return ablation_experiments(
            name,
            self.scale,
            self.train_seeds or (1 if self.scale == "quick" else 3),
            self.runs_folder(),
            changes=self._changes(False),
            device=self.device_name(),
            workers=self.workers or default_workers(),
            engine=self.engine,
            progress=progress,
        )
