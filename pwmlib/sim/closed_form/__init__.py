"""Closed-form, differentiable worlds in plain torch: where the optimiser can be checked without a learned model."""

from .cartpole import CartpoleSwingup
from .pendulum import PendulumSwingup

__all__ = ["CartpoleSwingup", "PendulumSwingup"]
