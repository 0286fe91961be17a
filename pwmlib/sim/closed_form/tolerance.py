"""Smooth reward shapes of the control suite: 1 at zero, a chosen value at the margin (Tassa et al. 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["gaussian_tolerance", "quadratic_tolerance"]


def gaussian_tolerance(x: Tensor, *, margin: float, value_at_margin: float = 0.1) -> Tensor:
    """exp(-c^2 (x / margin)^2 / 2) with c such that |x| = margin gives value_at_margin; any shape."""
    return torch.exp(math.log(value_at_margin) * (x / margin).square())


def quadratic_tolerance(x: Tensor, *, margin: float, value_at_margin: float = 0.0) -> Tensor:
    """max(0, 1 - (1 - value_at_margin) (x / margin)^2); any shape."""
    return (1 - (1 - value_at_margin) * (x / margin).square()).clamp(min=0.0)
