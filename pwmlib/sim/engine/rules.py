"""What an environment adds to a model: actuation, observation, reward, termination and reset, over the same generic scalars."""

from typing import Protocol

import torch
from torch import Tensor

from .model import Model
from .scalars import Number, Vector, from_columns

__all__ = ["EXTENT", "StepRules", "ended", "exploded", "split"]

EXTENT = 1e12
"""A state whose sum of squares is not below this, or is no number, has exploded."""


class StepRules(Protocol):
    """One control step around the substeps.

    All methods take and return generic scalars, so that they can be traced into the kernels and run on torch tensors alike.
    """

    model: Model
    action_dim: int
    obs_dim: int
    noise_dim: int

    def actuate(self, action: Vector) -> tuple[list[Number], list[Number]]:
        """Give joint actuation (nd, N or N m) and muscle activations, constant over the substeps, for an action clipped to [-1, 1]."""
        ...

    def observe(self, q: Vector, qd: Vector, action: Vector) -> list[Number]:
        """Observe obs_dim numbers; action: the clipped action that led here, zeros after a reset."""
        ...

    def reward(self, q: Vector, qd: Vector, action: Vector, next_q: Vector, next_qd: Vector) -> Number:
        """Give the reward of a transition with a clipped action."""
        ...

    def margin(self, q: Vector, qd: Vector) -> Number:
        """Give a number that is negative where the episode terminates."""
        ...

    def reset(self, noise: Vector) -> tuple[list[Number], list[Number]]:
        """Make a start state (q, qd) of noise_dim numbers uniform in [-1, 1]."""
        ...


def split(model: Model, state: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Take states [..., nq + nd] apart into q and qd, as generic scalars [...]."""
    return from_columns(state[..., : model.nq]), from_columns(state[..., model.nq :])


def exploded(state: Tensor) -> Tensor:
    """Tell which states [..., nq + nd] are no longer finite or sensible numbers, bool [...]."""
    return ~(state.square().sum(-1) < EXTENT)


def ended(rules: StepRules, state: Tensor) -> Tensor:
    """Tell in which states [..., nq + nd] an episode terminates, bool [...]: the margin is negative, or the state exploded."""
    margin = torch.as_tensor(rules.margin(*split(rules.model, state)))
    return (margin.expand(state.shape[:-1]) < 0) | exploded(state)
