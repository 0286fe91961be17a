"""Parameters of notebook 02."""

from typing import get_args

from pydantic import Field

from companion.running.notebook import Robots, names_of
from companion.running.parameters import override
from companion.single_task.runner import Algorithm, SingleTaskSettings

from .experiment import SingleTaskExperiment
from .scales import CHOSEN, SINGLE_TASKS, settings_for

Tasks, Algorithms = names_of(SINGLE_TASKS, "environment"), names_of(get_args(Algorithm), "algorithm")


class SingleTaskParameters(Robots):
    """notebooks/02_single_task.ipynb."""

    notebook = "02_single_task"
    in_the_name = frozenset({"tasks"})
    tasks: Tasks = Field([], description='environments of the simulator, e.g. ["hopper", "ant"]; empty means what the scale affords')
    algorithms: Algorithms = Field([], description='learners, e.g. ["shac", "pwm"]; empty means what the scale affords')
    train_seeds: int | None = Field(
        None, ge=1, le=100, description="the number of training seeds of each; None means 2 at scale quick, 3 at laptop, else 5"
    )
    stiffness: float = Field(1.0, gt=0, le=1000, description="factor on the stiffness and damping of contacts (Fig. 7a), in (0, 1000]")

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
