"""The same two estimators for a plain objective: J(theta) = E f(theta + sigma w), w standard normal. The smallest place to see them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .samples import check_samples

__all__ = ["objective_gradients"]


def objective_gradients(f: Callable[[Tensor], Tensor], theta: Tensor, noise: Tensor, *, sigma: float, order: str) -> Tensor:
    """Compute per-sample gradients of the smoothed objective, [N, P].

    f: [N, P] -> [N], one value a row. theta: [P]; noise: w, [N, P].
    order: "first", grad f(theta + sigma w); "zeroth", (f(theta + sigma w) - mean of the other samples) w / sigma.
    Raises ValueError for an f without gradient (first order), a wrong shape, or fewer than 2 samples (zeroth order).
    """
    if order not in ("first", "zeroth"):
        raise ValueError(f"objective_gradients: order must be 'first' or 'zeroth', got {order!r}")
    if theta.dim() != 1 or noise.dim() != 2 or noise.shape[1] != len(theta):
        raise ValueError(f"objective_gradients: theta {tuple(theta.shape)} and noise {tuple(noise.shape)} must be [P] and [N, P]")
    if not sigma > 0:
        raise ValueError(f"objective_gradients: sigma must be positive, got {sigma}")
    points = (theta + sigma * noise).detach()
    if order == "first":
        values = f(points.requires_grad_())
        _check_values(values, noise)
        if not values.requires_grad:
            raise ValueError("objective_gradients: f gives no gradient, so order must be 'zeroth'")
        return torch.autograd.grad(values.sum(), points)[0]
    check_samples(noise, "objective_gradients of zeroth order")
    with torch.no_grad():
        values = f(points)
    _check_values(values, noise)
    others = (values.sum() - values) / (len(values) - 1)
    return ((values - others) / sigma)[:, None] * noise


def _check_values(values: Tensor, noise: Tensor) -> None:
    if values.shape != (len(noise),):
        raise ValueError(f"objective_gradients: f must give one value a row, shape {(len(noise),)}, got {tuple(values.shape)}")
