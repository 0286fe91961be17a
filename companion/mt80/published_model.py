"""A published checkpoint as the world model of an experiment: TD-MPC2's of MT30 or MT80, or that of a PWM agent."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from companion.running.runs import single_thread
from pwmlib.baselines.released_models import ReleasedAgent, load_released
from pwmlib.data.sampler import padded_sizes
from pwmlib.data.torch_files import ForeignFileError
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.tasks import MT30, MT80, Task

DIFFERENCES = (
    "The checkpoint was trained on MetaWorld v2 and an earlier dm_control; here MetaWorld is v3, whose environments have the same "
    "observations and other reset distributions, and dm_control is the installed one. Published scores stand beside ours for orientation."
)


@dataclass(frozen=True)
class PublishedModel:
    """A checkpoint's file. It is read when first needed; ForeignFileError then says what does not fit."""

    path: Path

    @cached_property
    def _agent(self) -> ReleasedAgent:
        return load_released(self.path)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The model's tasks in its order, known by their number."""
        number = self.world_model.tasks
        if number not in (len(MT30), len(MT80)):
            raise ForeignFileError(f"{self.path}: a model of {number} tasks; expected {len(MT30)} (MT30) or {len(MT80)} (MT80)")
        found = MT30 if number == len(MT30) else MT80
        sizes, widest = (self.world_model.obs_dim, self.world_model.action_dim), padded_sizes(found)
        if sizes != widest:
            raise ForeignFileError(f"{self.path}: (observations, actions) of {sizes}; those of MT{number} are {widest}")
        return found

    @property
    def world_model(self) -> WorldModel:
        """The trained model, on the CPU."""
        return self._agent.world_model

    @property
    def fingerprint(self) -> str:
        """Ten hexadecimal digits that identify the file."""
        return self._agent.sha256[:10]

    def index(self, t: Task) -> int:
        """The model's number of a task."""
        if t not in self.tasks:
            raise ForeignFileError(f"{self.path}: a model of MT{len(self.tasks)}, which {t.name} is not in")
        return self.tasks.index(t)

    def update_s(self, config: PWMConfig) -> float:
        """Time of one policy update inside this model on one thread, s, measured now."""
        with single_thread():
            view = FrozenWorldModel(self.world_model, precision=config.precision)
            start = torch.zeros(config.batch, view.state_dim)
            learner = PWM(view, lambda batch, generator: start, config)
            learner.update()  # the first one allocates
            begun = time.perf_counter()
            learner.update()
            learner.update()
            return (time.perf_counter() - begun) / 2
