"""What an environment adds to a model: actuation, observation, reward, termination and reset, over the same generic scalars."""

from __future__ import annotations

from typing import Protocol

from .model import Model
from .scalars import Number, Vector

__all__ = ["StepRules"]


class StepRules(Protocol):
    """One control step around the substeps. All methods take and return generic scalars, so that they can be traced into the kernels
    and run on torch tensors alike."""

    model: Model
    action_dim: int
    obs_dim: int
    noise_dim: int

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Joint actuation (nd, N or N m) and muscle activations, constant over the substeps. action: already clipped to [-1, 1]."""
        ...

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        """Observation, obs_dim numbers. action: the clipped action that led here, zeros after a reset."""
        ...

    def reward(self, q: Vector, qd: Vector, action: Vector, next_q: Vector, next_qd: Vector) -> Number:
        """Reward of the transition."""
        ...

    def margin(self, q: Vector, qd: Vector) -> Number:
        """Negative where the episode terminates."""
        ...

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        """Start state (q, qd) from noise_dim numbers uniform in [-1, 1]."""
        ...
