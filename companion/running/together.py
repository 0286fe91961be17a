"""A learner and what its checkpoints hold beside it, as one that `train` drives."""

from typing import Any


class Together:
    """Parts that are saved and loaded together; the first is the learner."""

    def __init__(self, **parts: Any):
        self.parts = parts
        self.learner = next(iter(parts.values()))

    @property
    def step(self) -> int:
        return self.learner.step

    def update(self) -> dict[str, float]:
        return self.learner.update()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
