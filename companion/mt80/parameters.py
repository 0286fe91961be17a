"""Parameters of notebook 03."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from companion.running.jobs import Engine, default_workers
from companion.running.notebook import Common, Folder, Names
from companion.running.parameters import override, parse_list
from companion.running.paths import resolve, writable_folder
from companion.running.runs import digest, plain
from pwmlib.model.training import Variant
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.settings import SettingError
from pwmlib.tasks import STRATIFIED, Task, select_tasks
from pwmlib.tasks.video import RendererMissingError

from .anchored import Anchor
from .fine_tuning import FineTuning
from .online import divisible
from .peers import Comparison, MultitaskPeers
from .pictures import Watched
from .published_model import DIFFERENCES, PublishedModel
from .scales import FINE_TUNED, MultitaskScale, joint_training, multitask_scale
from .shipped_model import SHIPPED, Artefacts
from .stages import MultitaskExperiment

OWN_DATA = ("auto", "generate", "shipped")
TaskNames = Annotated[Names, AfterValidator(lambda names: [t.name for t in select_tasks(1, names)] if names else [])]
Comparisons = Annotated[list[Comparison], BeforeValidator(lambda value: parse_list(value) if value else [])]


class MultitaskParameters(Common):
    """notebooks/03_mt80.ipynb."""

    notebook = "03_mt80"
    in_the_name = frozenset({"tasks", "comparisons"})
    scale: Literal["quick", "laptop", "overnight", "paper"] = Field(
        "quick", description="how much is computed: quick (a check), laptop, overnight (laptop, and agents that learn on), or paper"
    )
    tasks: int = Field(4, ge=1, le=80, description="30 (MT30), 80 (MT80) or a number from 1 to 80 of a fixed stratified order")
    task_names: TaskNames = Field([], description='names of tasks, which replace `tasks`, e.g. ["cartpole-swingup", "mw-reach"]')
    train_seeds: int | None = Field(None, ge=1, le=1000, description="the number of training seeds per task; None means the scale's number")
    workers: int | None = Field(None, ge=1, le=1024, description="the number of processes; None means one per core")
    data: Folder = Field(
        "auto",
        description="generate, shipped, a folder that holds the published chunk_*.pt, or auto: at scale quick the shipped world model "
        "for more than 12 tasks of variant paper, else generate",
    )
    engine: Engine = Field("local", description="where jobs run: local or ray")
    data_dir: Folder | None = Field(
        None, description="the folder of episodes; missing ones are generated there; None means data/cache/episodes"
    )
    variant: Variant = Field("paper", description="the paper's choices, or those of the authors' multi-task run: paper or released")
    world_model: Folder | None = Field(
        None, description="a published checkpoint (.pt of TD-MPC2's MT30 or MT80, or of a PWM agent) instead of a world model trained here"
    )
    comparisons: Comparisons = Field(
        [], description="what PWM is compared with here: any of tdmpc2, one_policy, horizon; tdmpc2 and horizon need the episodes"
    )
    fine_tune: TaskNames = Field([], description="names of tasks on which policies learn online at the end; empty means the scale's choice")
    watch: TaskNames = Field([], description="names of tasks whose first policies are shown at work; empty means the first four of the run")
    policies: Literal["paper", "anchored"] = Field(
        "paper", description="those of the paper, or anchored: held near the data's good actions, an option of ours"
    )
    compared_tasks: int = Field(12, ge=1, le=80, description="how many of the tasks, in the stratified order, are compared")

    @model_validator(mode="after")
    def _runnable(self) -> MultitaskParameters:
        selected = [t.name for t in self.selected()]
        for field in ("fine_tune", "watch"):
            for name in getattr(self, field):
                if name not in selected:
                    self._refuse(field, f"{name} is not among the tasks of this run")
        if self.fine_tune and not divisible(self.scaled().model):
            self._refuse("fine_tune", "a world model that is residual or has spectral norms cannot be fine-tuned by task")
        if self.variant == "released" and self.data == "shipped":
            self._refuse("data", "variant='released' trains a world model of its own, as TD-MPC2 does; data must be another than 'shipped'")
        if self.world_model and (self.data == "shipped" or self.comparisons or self.fine_tune):
            name = "comparisons" if self.comparisons else "fine_tune" if self.fine_tune else "data"
            self._refuse(name, "with a published world_model it must stay at its default, or data name a folder")
        needing = [name for name in self.comparisons if name != "one_policy"]
        if needing and self.from_shipped():
            self._refuse("comparisons", f"{needing[0]} trains on episodes; set data to 'generate'")
        if self.data not in OWN_DATA and not self._chunks():
            self._refuse("data", "it is not 'auto', 'generate' or 'shipped', and no folder with chunk_*.pt in it")
        if self.data not in OWN_DATA and not self.data_dir:
            self._refuse("data", "the folder that its episodes are imported to is missing, set it with -p data_dir FOLDER")
        return self

    def _refuse(self, field: str, why: str) -> NoReturn:
        raise SettingError(field, getattr(self, field), why)

    def _chunks(self) -> tuple[Path, ...]:
        found = () if self.data in OWN_DATA else resolve(self.data).glob("chunk_*.pt")
        return tuple(sorted(found, key=lambda path: (len(path.name), path.name)))

    def from_shipped(self) -> bool:
        """Say whether this run starts from the shipped world model."""
        large = self.scale == "quick" and self.variant == "paper" and len(self.selected()) > 12 and not self.world_model
        return self.data == "shipped" or (self.data == "auto" and large)

    def _published(self) -> PublishedModel | None:
        if not self.world_model:
            return None
        path = resolve(self.world_model)
        if not path.is_file():
            self._refuse("world_model", "there is no such file; expected a published checkpoint, a .pt file")
        found = PublishedModel(path)
        for t in self.selected():
            found.index(t)
        return found

    def origin(self) -> str:
        """Say where a world model that is not trained here comes from."""
        if self.world_model:
            return f"{self.world_model}: published, SHA-256 {self._published().fingerprint}... {DIFFERENCES}"
        card = Artefacts(SHIPPED).card
        return f"shipped; its card: {card['command']} at {card['commit']}"

    def selected(self) -> tuple[Task, ...]:
        """Select the tasks of this run."""
        return select_tasks(self.tasks, self.task_names)

    def watched(self, experiment: MultitaskExperiment) -> list[Watched]:
        """Film the first policy of each task in `watch`; [] with a printed sentence where MuJoCo cannot render."""
        names = self.watch or [t.name for t in experiment.tasks[:4]]
        try:
            return [experiment.watch(i) for i, t in enumerate(experiment.tasks) if t.name in names]
        except RendererMissingError as error:
            print(error)
            return []

    def peers(self, experiment: MultitaskExperiment) -> MultitaskPeers:
        """The comparisons on the first `compared_tasks` of the stratified order that are in the experiment."""
        chosen = [t for t in STRATIFIED if t in experiment.tasks][: self.compared_tasks]
        return MultitaskPeers(experiment, tuple(sorted(experiment.tasks.index(t) for t in chosen)))

    def fine_tuning(self, experiment: MultitaskExperiment) -> FineTuning:
        """Online fine-tuning on the tasks in `fine_tune`, or on those of the scale's that are in the experiment."""
        trained_here = self.variant == "paper" and not self.world_model
        names = self.fine_tune or (FINE_TUNED[self.scale] if trained_here and divisible(experiment.scale.model) else ())
        return FineTuning(experiment, tuple(i for i, t in enumerate(experiment.tasks) if t.name in names))

    def scaled(self) -> MultitaskScale:
        """The scale's numbers with the variant's switches and this notebook's changes."""
        scale = multitask_scale(self.scale, len(self.selected()), self.variant)
        if self.world_model:  # Table 1's policies; planning inside a large model would cost more than all of them
            theirs = PWMConfig.variant(self.variant)
            scale = replace(scale, policy=theirs, collection=None, agents=None, planner_episodes=0, evaluate_every=500)
        if self.policies == "anchored":
            if self.variant == "released":
                self._refuse("policies", "must be 'paper' with variant='released'")
            scale = replace(scale, anchor=Anchor())
        elif any(name.split(".")[0] == "anchor" for name in self.overrides):
            self._refuse("policies", "must be 'anchored' where overrides change the anchor")
        scale = override(scale, self.overrides)
        if self.policies == "anchored" and not (scale.anchor and scale.policy.start_states == "all"):
            self._refuse("policies", "needs an anchor and policy.start_states='all', which overrides took away")
        if scale.pretraining == "tdmpc2":
            joint_training(scale.training, scale.tdmpc2)
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
            published=self._published(),
            chunks=self._chunks(),
        )
