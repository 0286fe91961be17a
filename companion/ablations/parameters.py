"""Parameters of notebook 04."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from companion.mt80.scales import MULTITASK_SCALES, MultitaskScale
from companion.mt80.stages import MultitaskExperiment
from companion.running.notebook import Robots, names_of
from companion.running.parameters import override, parse_list
from companion.single_task.experiment import SingleTaskExperiment
from companion.single_task.scales import settings_for
from pwmlib.settings import Count
from pwmlib.tasks import MT80, task

from .extraction import ABLATION_SCALES, ExtractionStudy
from .questions import ABLATIONS, ablation_experiments

Questions = names_of(list(ABLATIONS), "ablation", some=True)
Tasks = names_of([t.name for t in MT80 if t.suite == "dm_control"], "dm_control task")
Numbers = Annotated[list[Count], BeforeValidator(parse_list)]


class AblationParameters(Robots):
    """notebooks/04_ablations.ipynb."""

    notebook = "04_ablations"
    in_the_name = frozenset({"ablations", "extraction_tasks"})
    ablations: Questions = Field(["stiffness"], description=f"questions to answer: any of {', '.join(ABLATIONS)}")
    extraction_tasks: Tasks = Field([], description='dm_control tasks of Fig. 8b, e.g. ["cartpole-swingup"]; empty means none')
    extraction_updates: Numbers = Field([], description="updates of the world model at which they are compared; empty means the scale's")
    train_seeds: int | None = Field(
        None, ge=1, le=100, description="the number of training seeds of each variation; None means 1 at scale quick, else 3"
    )

    def _changes(self) -> dict[str, Any]:
        """The overrides that are not Fig. 8b's."""
        return {k: v for k, v in self.overrides.items() if not k.startswith("extraction.")}

    def scaled(self) -> MultitaskScale:
        """Sizes of Fig. 8b: the multi-task ones of `paper`, else those of `quick`, which suit a single task. Raises SettingError, also for
        an override of the other questions."""
        override(settings_for(self.scale, "hopper"), self._changes())
        changes = {k.removeprefix("extraction."): v for k, v in self.overrides.items() if k.startswith("extraction.")}
        return override(MULTITASK_SCALES["paper" if self.scale == "paper" else "quick"], changes, prefix="extraction.")

    def extraction(self) -> ExtractionStudy:
        """The study of Fig. 8b of these parameters."""
        tasks, folder = tuple(task(name) for name in self.extraction_tasks), self.runs_folder() / "extraction"
        folders = {"runs_dir": folder, "data_dir": folder / "episodes"}
        experiment = MultitaskExperiment(tasks, self.scaled(), self._seeds(), **folders, **self.runner())
        return ExtractionStudy(experiment, tuple(self.extraction_updates) or ABLATION_SCALES[self.scale].extraction_updates)

    def experiments(self, name: str) -> dict[str, SingleTaskExperiment]:
        """The experiments of one ablation, by variation."""
        how = {"changes": self._changes(), **self.runner()}
        return ablation_experiments(name, self.scale, self._seeds(), self.runs_folder(), **how)

    def _seeds(self) -> int:
        return self.train_seeds or ABLATION_SCALES[self.scale].train_seeds
