"""A learner whose updates are timed and counted, and whose critic must stay within bounds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from pwmlib.errors import ExplainedError


class DivergedError(ExplainedError):
    """Training went where no return can follow; the message says which number and what its bound is."""


class Learner(Protocol):
    """What a run drives and evaluates."""

    step: int
    actor: Callable[[Tensor, None], Tensor]

    def update(self) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Spent:
    """What was spent before a learner's own first step."""

    env_steps: int = 0
    gradient_steps: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Watched:
    """A learner whose critic must stay within bounds, and whose updates are timed and their optimiser steps counted."""

    def __init__(self, learner: Learner, largest_value: float, before: Spent):
        self.learner, self.largest_value = learner, largest_value
        self.wall, self.cpu = before.wall_s, before.cpu_s
        """Seconds of all updates so far, those before an interruption included; evaluations are not."""
        self.gradient_steps = before.gradient_steps

    @property
    def step(self) -> int:
        return self.learner.step

    def update(self) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        counting = register_optimizer_step_post_hook(self._count)
        try:
            metrics = self.learner.update()
        finally:
            counting.remove()
        self.wall, self.cpu = self.wall + time.perf_counter() - wall, self.cpu + time.process_time() - cpu
        if metrics.get("critic_loss", 0.0) > self.largest_value**2:
            raise DivergedError(
                f"update {self.step}: the critic loss is {metrics['critic_loss']:.3g}, beyond {self.largest_value:.0e} squared; the run "
                "is kept as diverged"
            )
        return metrics

    def _count(self, optimiser: object, args: object, kwargs: object) -> None:
        self.gradient_steps += 1

    def cost(self) -> dict[str, float]:
        """What was spent so far, as `Spent` names it."""
        return {"gradient_steps": self.gradient_steps, "wall_s": self.wall, "cpu_s": self.cpu}

    def state_dict(self) -> dict[str, Any]:
        spent = {"wall": self.wall, "cpu": self.cpu, "gradient_steps": self.gradient_steps}
        return {"learner": self.learner.state_dict(), **spent}

    def policy_state(self) -> dict[str, Any]:
        """What is left to keep of a run that is over: not its replay, which is most of the file."""
        state = self.state_dict()
        return {**state, "learner": {name: part for name, part in state["learner"].items() if name != "replay"}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.wall, self.cpu, self.gradient_steps = state["wall"], state["cpu"], int(state["gradient_steps"])
