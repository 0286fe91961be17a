"""The pictures of notebook 05, each a function of an f and of the estimators that the notebook's cells define, and its last table."""

from collections.abc import Callable, Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from companion.reporting.colours import BLACK, GREEN, METHODS
from companion.reporting.sliders import picture
from companion.running.runs import single_thread
from pwmlib.estimators import gradient_statistics, mix, variance_optimal_alpha

Objective = Callable[[Tensor], Tensor]
"""x [N, P] -> f(x) [N], one value a row."""
Orders = Mapping[str, Callable[[Objective, Tensor, Tensor, float], Tensor]]
"""Name -> estimator: (f, theta [P], noise [N, P], sigma) -> gradient samples [N, P]. The first in blue, the second in orange."""

FIRST, ZEROTH, EXACT, OTHER = METHODS["first order"], METHODS["zeroth order"], BLACK, GREEN


def _normal(count: int, size: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


@picture
def spread(f: Objective, orders: Orders, *, theta: float = 1.0, sigma: float = 0.3, samples: int = 1000) -> Figure:
    """f with 40 samples around theta, and how far the single gradient samples of the estimators spread."""
    at, noise = torch.tensor([theta]), _normal(samples)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.2), layout="constrained")
    grid = torch.linspace(theta - 2.5, theta + 1.5, 100)
    left.plot(grid, f(grid[:, None]), color=EXACT)
    spots = at + sigma * noise[:40]
    left.plot(spots, f(spots), ".", color=FIRST, alpha=0.6)
    left.set(title=f"f, and 40 samples around theta = {theta:g}", xlabel="theta")
    for (order, estimator), colour in zip(orders.items(), (FIRST, ZEROTH), strict=True):
        g = estimator(f, at, noise, sigma)[:, 0]
        right.hist(g.clamp(-6, 8).numpy(), 60, alpha=0.6, color=colour, density=True, label=f"{order}: std {float(g.std()):.2f}")
    right.axvline(float(smoothed(f, at, sigma)[1]), color=EXACT, linestyle="--", label="true gradient")
    right.set(title="single gradient samples", xlabel="gradient")
    right.legend(fontsize=8)
    return figure


def smoothed(f: Objective, grid: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """J(theta) = E f(theta + sigma w) and its gradient along a grid of theta, by quadrature over w."""
    w = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    weight = torch.exp(-0.5 * w.square())
    weight = weight / weight.sum()
    values = f((grid.double()[:, None] + sigma * w).reshape(-1, 1)).view(len(grid), -1).double()
    return values @ weight, (values * w) @ weight / sigma


@picture
def along(f: Objective, orders: Orders, *, reach: float = 2.0, sigma: float = 0.5, samples: int = 1000) -> Figure:
    """f and its smoothed J for theta in [-reach, reach], and the mean of each estimator with two standard errors, beside the truth."""
    noise, grid, name = _normal(samples), torch.linspace(-reach, reach, 61), f.__name__.replace("_", " ")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.2), layout="constrained")
    values, exact = smoothed(f, grid, sigma)
    left.plot(grid, f(grid[:, None]), color="0.6", label="f")
    left.plot(grid, values, color=EXACT, label=f"J: smoothed over {sigma:.2g}")
    left.set(title=name, xlabel="theta")
    left.legend(fontsize=8)
    for (order, estimator), colour in zip(orders.items(), (FIRST, ZEROTH), strict=True):
        g = torch.stack([estimator(f, theta[None], noise, sigma)[:, 0] for theta in grid], 1)
        mean, error = g.mean(0), g.std(0) / samples**0.5
        right.plot(grid, mean, color=colour, label=f"{order}, mean of {samples}")
        right.fill_between(grid, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.2, linewidth=0)
    right.plot(grid, exact, color=EXACT, linestyle="--", label="true gradient of J")
    right.set(title="what the estimators say", xlabel="theta")
    right.legend(fontsize=8)
    return figure


def growth(distances: Tensor) -> tuple[Tensor, float]:
    """Root of the mean square over pairs of distances [steps, pairs], and how often it grows by a factor e [1 / step] while below 0.3."""
    mean = distances.square().mean(1).sqrt()
    steps = torch.arange(len(mean))[mean < 0.3]
    return mean, float(np.polyfit(steps, mean[steps].log(), 1)[0])


def _plot_distances(axis: Axes, distances: Tensor, horizon: int) -> None:
    steps, (mean, rate) = torch.arange(1, len(distances) + 1), growth(distances)
    axis.plot(steps, distances[:, :64], color="0.75", lw=0.5)
    axis.plot(steps, mean, color=EXACT, label=f"root mean square of {distances.shape[1]} pairs")
    axis.plot(steps, mean[0] * torch.exp(rate * steps), color=OTHER, ls="--", label=f"e times as far every {1 / rate:.0f} steps")
    axis.axvline(horizon, color="0.7", lw=1)
    axis.set(title="distance of neighbouring starts [rad]", xlabel="step", yscale="log", ylim=(5e-4, 50))
    axis.legend(fontsize=8)


@picture
def against_horizon(
    functions: Mapping[str, Objective], orders: Orders, horizons: Iterable[int], *, actions: int = 1, sigma: float = 0.3,
    samples: int = 64, distances: Tensor | None = None,
) -> Figure:  # fmt: skip
    """Variance and ESNR of the estimators at x = 0 against the number of steps of each rollout (the last of `functions` solid).

    Args:
        functions: label -> f of the actions of H steps, shape [samples, H * actions].
        orders: the estimators.
        horizons: H, rising.
        actions: numbers that a step takes.
        sigma: of the noise on x.
        samples: N.
        distances: of neighbouring starts [steps, pairs], drawn to the left where given.
    """
    horizons = list(horizons)
    count, width = (2, 9.0) if distances is None else (3, 11.0)
    figure, axes = plt.subplots(1, count, figsize=(width, 3.2), layout="constrained")
    if distances is not None:
        _plot_distances(axes[0], distances, horizons[-1])
    styles = ("-", "--", ":")[: len(functions)][::-1]
    for (label, f), style in zip(functions.items(), styles, strict=True):
        for (order, estimator), colour in zip(orders.items(), (FIRST, ZEROTH), strict=True):
            sizes = [steps * actions for steps in horizons]
            found = [gradient_statistics(estimator(f, torch.zeros(p), _normal(samples, p, seed=1), sigma), resamples=0) for p in sizes]
            for axis, name in zip(axes[-2:], ("variance", "esnr"), strict=True):
                axis.plot(horizons, [getattr(x, name) for x in found], color=colour, ls=style, label=f"{order} {label}".strip())
    for axis, title in zip(axes[-2:], ("variance (trace)", "ESNR"), strict=True):
        axis.set(title=title, yscale="log", xlabel="horizon H")
    axes[-1].axhline(1 / samples, color="0.7", ls=":")  # of samples without any signal
    axes[-1].legend(fontsize=7)
    return figure


def _errors(first: Tensor, zeroth: Tensor, exact: Tensor, count: int, repeats: int = 100) -> dict[str, float]:
    """Root mean square error of the mean of `count` samples, relative to the exact gradient, over random draws from a pool."""
    generator, sums = torch.Generator().manual_seed(0), {"first order": 0.0, "zeroth order": 0.0, "mixture": 0.0}
    for _ in range(repeats):
        chosen = torch.randperm(len(first), generator=generator)[:count]
        a, b = first[chosen].double(), zeroth[chosen].double()
        estimates = {"first order": a, "zeroth order": b, "mixture": mix(a, b, variance_optimal_alpha(a, b))}
        for name, x in estimates.items():
            sums[name] += float((x.mean(0) - exact.double()).square().sum())
    scale = float(exact.norm())
    return {name: (value / repeats) ** 0.5 / scale for name, value in sums.items()}


def who_wins(worlds: Mapping[str, tuple[Objective, Tensor, float]], orders: Orders, *, samples: int, pool: int) -> pd.DataFrame:
    """Relative error of the mean of `samples` gradients in each world, (f, theta [P], sigma).

    The exact gradient is quadrature where theta is one number; for the others (continuous, so the first-order estimate is unbiased)
    it is the mean of the whole pool of first-order samples.
    """
    rows = {}
    with single_thread():
        for name, (f, theta, sigma) in worlds.items():
            noise = _normal(pool, len(theta), seed=8)
            first, zeroth = (estimator(f, theta, noise, sigma) for estimator in orders.values())
            exact = smoothed(f, theta, sigma)[1] if len(theta) == 1 else first.mean(0)
            rows[name] = _errors(first, zeroth, exact, samples)
    table = pd.DataFrame(rows).T
    return table.assign(best=table.idxmin(axis=1)).rename_axis("world").reset_index()
