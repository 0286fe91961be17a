"""The parameters of each notebook: names, types, allowed values, defaults per scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from pydantic import BeforeValidator, Field, field_validator, model_validator

from .ball_wall import BALL_WALL_SCALES, BallWallScale
from .claims.claim import VERDICTS, Verdict
from .config import PWMConfig, WorldModelTraining
from .double_pendulum import DOUBLE_PENDULUM_SCALES, DoublePendulumScale, Study, run_study
from .envs import ENVS
from .extraction_study import EXTRACTION_UPDATES, ExtractionStudy
from .jobs import Engine, default_workers
from .model_fidelity import fidelity_study
from .multitask import MultitaskExperiment
from .multitask_peers import Comparison, MultitaskPeers
from .paper_figures import PAPER_FIGURES, SOURCES, Source
from .parameters import NotebookParameters, ParameterError, override, parse_list
from .paths import resolve, writable_folder
from .runs import digest, plain, resolve_device
from .scales import MULTITASK_SCALES, MultitaskScale
from .shipped import SHIPPED, Artefacts
from .single_task.ablations import ABLATIONS, ablation_experiments
from .single_task.experiment import SingleTaskExperiment
from .single_task.runner import Algorithm, SingleTaskSettings
from .single_task.scales import DEFAULT_ALGORITHMS, settings_for
from .tasks import MT80, STRATIFIED, Task, select_tasks
from .toys.ball_wall import BallWall

__all__ = [
    "AblationParameters",
    "BallWallParameters",
    "DoublePendulumParameters",
    "FiguresParameters",
    "LessonParameters",
    "MultitaskParameters",
    "SingleTaskParameters",
]

Scale = Annotated[Literal["quick", "laptop", "paper"], Field(description="how much is computed: quick (a check), laptop, or paper")]
Names = Annotated[list[str], BeforeValidator(parse_list)]


Comparisons = Annotated[list[Comparison], BeforeValidator(lambda value: parse_list(value) if value else [])]


class _Folders(NotebookParameters):
    """Parameters that every notebook has."""

    scale: Scale
    runs_dir: str = Field(min_length=1, description="the folder of runs; finished ones are not repeated")
    figures_dir: str = Field(description="the folder of figures; empty means figures/ (figures/quick at scale quick)")
    device: str = Field(description="'auto', 'cpu', 'cuda' or a torch device")
    overrides: dict[str, Any] = Field(description='settings of the scale to replace, by dotted name, e.g. {"policy.updates": 100}')

    @field_validator("device")
    @classmethod
    def _usable(cls, value: str) -> str:
        resolve_device(value)
        return value

    @field_validator("overrides", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return parse_list(value) if value else {}

    def runs_folder(self) -> Path:
        """The folder of runs, created. Raises OutputFolderError."""
        return writable_folder(self.runs_dir, "runs_dir")

    def figures_folder(self) -> Path:
        """The folder of figures, created. Raises OutputFolderError."""
        default = "figures/quick" if self.scale == "quick" else "figures"
        return writable_folder(self.figures_dir or default, "figures_dir")


class BallWallParameters(_Folders):
    """notebooks/00_ball_wall.ipynb."""

    seeds: int = Field(ge=0, le=1000, description="the number of seeds, at least 2; 0 means the scale's number")
    start: float = Field(ge=-math.pi, le=math.pi, description="where gradient descent starts, rad in [-pi, pi]")
    lr: float = Field(gt=0, le=1, description="the step size of gradient descent, in (0, 1]")
    wall: float = Field(gt=0, description="the wall's place, m")
    height: float = Field(description="the wall's upper edge, m")
    speed: float = Field(gt=0, description="the throwing speed, m/s")
    acceleration: float = Field(gt=0, description="the horizontal acceleration, m/s^2")
    gravity: float = Field(gt=0, description="gravity, m/s^2")
    time: float = Field(gt=0, description="when the ball's place counts, s")
    contact_time: Literal["corrected", "released"] = Field(description="Eq. 11 corrected, or as released")

    @field_validator("seeds")
    @classmethod
    def _more_than_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("an interval over seeds needs at least 2")
        return value

    def world(self) -> BallWall:
        """The world of these parameters."""
        names = ("speed", "acceleration", "gravity", "wall", "height", "time", "contact_time")
        return BallWall(**{name: getattr(self, name) for name in names})

    def scaled(self) -> BallWallScale:
        """The scale's numbers with this notebook's changes."""
        scale = override(BALL_WALL_SCALES[self.scale], self.overrides)
        return replace(scale, seeds=self.seeds) if self.seeds else scale

    @model_validator(mode="after")
    def _overrides_exist(self) -> BallWallParameters:
        self.scaled()
        return self


class _OnTheCPU(_Folders):
    """Parameters of a notebook that does not use a GPU."""

    @field_validator("device")
    @classmethod
    def _cpu(cls, value: str) -> str:
        if value not in ("cpu", "auto"):
            raise ValueError("this notebook runs on the CPU; device must be 'cpu' or 'auto'")
        return value


class DoublePendulumParameters(_OnTheCPU):
    """notebooks/01_double_pendulum.ipynb."""

    horizons: int = Field(ge=0, le=200, description="the longest horizon of the sweep, at least 2; 0 means the scale's number")
    samples: int = Field(ge=0, le=100_000, description="N, Monte-Carlo samples of a gradient, at least 2; 0 means the scale's number")
    shac_seeds: int = Field(ge=0, le=100, description="the number of SHAC runs; 0 means the scale's number")
    workers: int = Field(ge=0, le=1024, description="the number of processes; 0 means one per core")

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


class LessonParameters(_OnTheCPU):
    """notebooks/05_gradient_estimators.ipynb."""

    samples: int = Field(
        ge=0, le=100_000, description="N, samples of each estimate in the last table, at least 2; 0 means the scale's number"
    )

    def sizes(self) -> tuple[int, int]:
        """(N, pool of samples that they are drawn from)."""
        if self.overrides:
            raise ParameterError(f"overrides={self.overrides!r} is not allowed: this notebook has no settings beyond its parameters.")
        return self.samples or 100, {"quick": 2000, "laptop": 20_000, "paper": 100_000}[self.scale]

    @field_validator("samples")
    @classmethod
    def _more_than_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("a variance needs at least 2")
        return value


class _Robots(_Folders):
    """Parameters of the notebooks whose small runs are faster on a CPU, with or without a GPU at hand."""

    device: str = Field(description="'by_scale' (the CPU; at scale paper a GPU where there is one), 'auto', 'cpu' or a torch device")

    @field_validator("device")
    @classmethod
    def _usable(cls, value: str) -> str:
        return value if value == "by_scale" else super()._usable(value)

    def device_name(self) -> str:
        """What torch calls the device."""
        by_scale = "auto" if self.scale == "paper" else "cpu"
        return str(resolve_device(by_scale if self.device == "by_scale" else self.device))


class SingleTaskParameters(_Robots):
    """notebooks/02_single_task.ipynb."""

    tasks: Names = Field(description='environments of the simulator, e.g. ["hopper", "ant"]')
    algorithms: Names = Field(description='learners, e.g. ["shac", "pwm"]; empty means what the scale affords')
    train_seeds: int = Field(
        ge=0, le=100, description="the number of training seeds of each; 0 means 2 at scale quick, 3 at laptop, else 5"
    )
    stiffness: float = Field(gt=0, description="factor on the stiffness and damping of contacts (Fig. 7a)")
    engine: Engine = Field(description="where jobs run: local or ray")
    workers: int = Field(ge=0, le=1024, description="the number of processes; 0 means one per core")

    @field_validator("tasks")
    @classmethod
    def _environments(cls, value: list[str]) -> list[str]:
        return _all_of(value, [name for name in ENVS if name != "double_pendulum"], "environment")

    @field_validator("algorithms")
    @classmethod
    def _learners(cls, value: list[str]) -> list[str]:
        return _all_of(value, get_args(Algorithm), "algorithm") if value else []

    @model_validator(mode="after")
    def _overrides_exist(self) -> SingleTaskParameters:
        self.settings()
        return self

    def settings(self) -> dict[str, SingleTaskSettings]:
        """The sizes on each task with this notebook's changes."""
        return {name: override(settings_for(self.scale, name), self.overrides) for name in self.tasks}

    def experiment(self, *, progress: bool = True) -> SingleTaskExperiment:
        """The experiment of these parameters, its folder checked."""
        return SingleTaskExperiment(
            tasks=tuple(self.tasks),
            algorithms=tuple(self.algorithms) or DEFAULT_ALGORITHMS[self.scale],
            settings=self.settings(),
            train_seeds=self.train_seeds or {"quick": 2, "laptop": 3, "paper": 5}[self.scale],
            runs_dir=self.runs_folder(),
            stiffness=self.stiffness,
            device=self.device_name(),
            workers=self.workers or default_workers(),
            engine=self.engine,
            progress=progress,
        )


class AblationParameters(_Robots):
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
        return _all_of(value, list(ABLATIONS), "ablation")

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
        return _all_of(value, [t.name for t in MT80 if t.suite == "dm_control"], "dm_control task") if value else []

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


def _all_of(values: list[str], known: Sequence[str], kind: str) -> list[str]:
    unknown = [v for v in values if v not in known]
    if unknown or not values:
        raise ValueError(f"no {kind} {', '.join(map(repr, unknown)) or 'given'}; known: {', '.join(known)}")
    return list(dict.fromkeys(values))


class MultitaskParameters(_Folders):
    """notebooks/03_mt80.ipynb."""

    tasks: int = Field(ge=1, le=80, description="30 (MT30), 80 (MT80) or a number from 1 to 80 of a fixed stratified order")
    task_names: Names = Field(description='names of tasks, which replace `tasks`, e.g. ["cartpole-swingup", "mw-reach"]')
    train_seeds: int = Field(ge=0, le=1000, description="the number of training seeds per task; 0 means the scale's number")
    workers: int = Field(ge=0, le=1024, description="the number of processes; 0 means one per core")
    data: str = Field(
        description="generate, shipped, a folder that holds the published chunk_*.pt, or auto: at scale quick the shipped world model "
        "for more than 12 tasks, else generate"
    )
    engine: Engine = Field(description="where jobs run: local or ray")
    data_dir: str = Field(description="the folder of episodes; missing ones are generated there; empty means data/cache/episodes")
    variant: Literal["paper", "released"] = Field(description="the paper's choices, or the released code's")
    comparisons: Comparisons = Field(
        description="what PWM is compared with here: any of tdmpc2, one_policy, horizon; tdmpc2 and horizon need the episodes"
    )
    compared_tasks: int = Field(ge=1, le=80, description="how many of the tasks, in the stratified order, are compared")

    @field_validator("task_names")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if value:
            select_tasks(1, value)
        return value

    @model_validator(mode="after")
    def _runnable(self) -> MultitaskParameters:
        self.scaled()
        needing = [name for name in self.comparisons if name != "one_policy"]
        if needing and self.from_shipped():
            raise ValueError(f"comparisons={self.comparisons}: {needing[0]} trains on episodes; set data to 'generate'")
        if self.data not in ("auto", "generate", "shipped"):
            if not self._chunks():
                raise ValueError(f"data={self.data!r}: not 'auto', 'generate' or 'shipped', and no folder with chunk_*.pt in it")
            if not self.data_dir:
                raise ValueError("data is a folder of chunks: name the folder that their episodes are imported to with data_dir")
        return self

    def _chunks(self) -> tuple[Path, ...]:
        known = self.data in ("auto", "generate", "shipped")
        return () if known else tuple(sorted(resolve(self.data).glob("chunk_*.pt"), key=lambda p: (len(p.name), p.name)))

    def from_shipped(self) -> bool:
        """Whether this run starts from the shipped world model."""
        return self.data == "shipped" or (self.data == "auto" and self.scale == "quick" and len(self.selected()) > 12)

    def card_line(self) -> str:
        """Where the shipped world model comes from."""
        card = Artefacts(SHIPPED).card
        return f"{card['command']} at {card['commit']}"

    def selected(self) -> tuple[Task, ...]:
        """The tasks of this run."""
        return select_tasks(self.tasks, self.task_names)

    def peers(self, experiment: MultitaskExperiment) -> MultitaskPeers:
        """The comparisons on the first `compared_tasks` of the stratified order that are in the experiment."""
        chosen = [t for t in STRATIFIED if t in experiment.tasks][: self.compared_tasks]
        return MultitaskPeers(experiment, tuple(sorted(experiment.tasks.index(t) for t in chosen)))

    def scaled(self) -> MultitaskScale:
        """The scale's numbers with the variant's switches and this notebook's changes."""
        scale = MULTITASK_SCALES[self.scale]
        if self.variant == "released":
            scale = replace(scale, policy=_released(PWMConfig, scale.policy), training=_released(WorldModelTraining, scale.training))
            scale = replace(scale, model=replace(scale.model, apply_action_mask=False))
        scale = override(scale, self.overrides)
        return replace(scale, train_seeds=self.train_seeds or scale.train_seeds)

    def experiment(self, *, progress: bool = True) -> MultitaskExperiment:
        """The experiment of these parameters, its folders checked."""
        scale = self.scaled()
        data = self.data_dir or f"data/cache/episodes/{digest(plain(scale.data))}"
        return MultitaskExperiment(
            tasks=self.selected(),
            scale=scale,
            train_seeds=scale.train_seeds,
            runs_dir=self.runs_folder(),
            data_dir=writable_folder(data, "data_dir"),
            device=self.device,
            workers=self.workers or default_workers(),
            progress=progress,
            engine=self.engine,
            shipped=Artefacts(SHIPPED) if self.from_shipped() else None,
            chunks=self._chunks(),
        )


def _released(kind: Any, settings: Any) -> Any:
    """Settings of a scale with every switch of the released code; sizes and lengths stay the scale's."""
    released, paper = kind.variant("released"), kind.variant("paper")
    sizes = {"batch"}
    switches = {name: value for name, value in vars(released).items() if value != getattr(paper, name) and name not in sizes}
    return replace(settings, **switches)


class FiguresParameters(NotebookParameters):
    """notebooks/06_figures_and_claims.ipynb."""

    numbers: Names = Field(description='figures of the paper, e.g. ["5", "8a"]; empty means all')
    sources: Names = Field(description="whose numbers: any of published, released, ours; empty means all that are at hand")
    released_dir: str = Field(description="the folder with the authors' result files; empty means there is none")
    verdicts: Names = Field(description=f"verdicts of the ledger to show: any of {', '.join(VERDICTS)}; empty means all")
    words: str = Field(description="show only claims that contain this text")
    figures_dir: str = Field(description="the folder of figures; empty means figures/paper")

    @field_validator("numbers", "sources", "verdicts", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return [str(v) for v in parse_list(value)] if value else []

    @field_validator("numbers")
    @classmethod
    def _of_the_paper(cls, value: list[str]) -> list[str]:
        return _all_of(value or list(PAPER_FIGURES), list(PAPER_FIGURES), "figure")

    @field_validator("sources")
    @classmethod
    def _sources(cls, value: list[str]) -> list[str]:
        return _all_of(value, list(SOURCES), "source") if value else []

    @field_validator("verdicts")
    @classmethod
    def _verdicts(cls, value: list[str]) -> list[str]:
        return _all_of(value, list(VERDICTS), "verdict") if value else []

    @model_validator(mode="after")
    def _released(self) -> FiguresParameters:
        if self.released_dir and not resolve(self.released_dir).is_dir():
            raise ParameterError(
                f"released_dir={self.released_dir!r} is not a folder; the README's 'The released files' says how to get it."
            )
        return self

    def released_folder(self) -> Path | None:
        """The folder with the authors' result files, if there is one."""
        return resolve(self.released_dir) if self.released_dir else None

    def chosen_sources(self) -> tuple[Source, ...]:
        """In the order of `SOURCES`."""
        at_hand = [s for s in SOURCES if s != "released" or self.released_dir]
        return tuple(s for s in SOURCES if s in (self.sources or at_hand))

    def chosen_verdicts(self) -> tuple[Verdict, ...]:
        """In the order of `VERDICTS`."""
        return tuple(v for v in VERDICTS if v in (self.verdicts or VERDICTS))

    def figures_folder(self) -> Path:
        """The folder of figures, created. Raises OutputFolderError."""
        return writable_folder(self.figures_dir or "figures/paper", "figures_dir")
