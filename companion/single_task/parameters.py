"""Parameters of notebook 02."""

from typing import get_args

from pydantic import Field, field_validator

from companion.running.notebook import Names, Robots, all_of
from companion.running.parameters import override
from companion.single_task.runner import Algorithm, SingleTaskSettings

from .experiment import SingleTaskExperiment
from .scales import CHOSEN, SINGLE_TASKS, settings_for


class SingleTaskParameters(Robots):
    """notebooks/02_single_task.ipynb."""

    notebook = "02_single_task"
    in_the_name = frozenset({"tasks"})
    tasks: Names = Field([], description='environments of the simulator, e.g. ["hopper", "ant"]; empty means what the scale affords')
    algorithms: Names = Field([], description='learners, e.g. ["shac", "pwm"]; empty means what the scale affords')
    train_seeds: int | None = Field(
        None, ge=1, le=100, description="the number of training seeds of each; None means 2 at scale quick, 3 at laptop, else 5"
    )
    stiffness: float = Field(1.0, gt=0, le=1000, description="factor on the stiffness and damping of contacts (Fig. 7a), in (0, 1000]")

    @field_validator("tasks")
    @classmethod
    def _environments(cls, value: list[str]) -> list[str]:
        return all_of(value, SINGLE_TASKS, "environment") if value else []

    @field_validator("algorithms")
    @classmethod
    def _learners(cls, value: list[str]) -> list[str]:
        return all_of(value, get_args(Algorithm), "algorithm") if value else []

    def scaled(self) -> dict[str, SingleTaskSettings]:
        """The sizes on each task with this notebook's changes."""
        tasks = self.tasks or CHOSEN[self.scale].tasks
        return {name: override(settings_for(self.scale, name), self.overrides) for name in tasks}

    def experiment(self, *, progress: bool = True) -> SingleTaskExperiment:
        """The experiment of these parameters, its folder checked."""
        settings, chosen = self.scaled(), CHOSEN[self.scale]
        return SingleTaskExperiment(
            tasks=tuple(settings),
            algorithms=tuple(self.algorithms) or chosen.algorithms,
            settings=settings,
            train_seeds=self.train_seeds or chosen.train_seeds,
            runs_dir=self.runs_folder(),
            stiffness=self.stiffness,
            **self.runner(progress),
        )
