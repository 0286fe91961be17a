"""The pictures of notebook 05, each a function of what a slider moves, and the measured table at its end."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from companion.running.runs import single_thread
from pwmlib.estimators import PolicyGradients, first_order, horizon_table, mix, variance_optimal_alpha, zeroth_order
from pwmlib.model.dynamics import Dynamics
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.sim.env import EnvDynamics

__all__ = ["Picture", "along", "chaos", "contact", "separation", "slider", "spread", "who_wins"]

FIRST, ZEROTH, EXACT, OTHER = "#0072B2", "#D55E00", "#000000", "#009E73"


@dataclass(frozen=True)
class Picture:
    """A drawn figure as PNG: shown by Jupyter as a cell's value or in a widget."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def _picture(draw: Callable[..., Figure]) -> Callable[..., Picture]:
    @functools.wraps(draw)
    def rendered(*arguments: object, **options: object) -> Picture:
        with single_thread():
            figure = draw(*arguments, **options)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
        return Picture(buffer.getvalue())

    return rendered


def slider(draw: Callable[..., Picture], **ranges: tuple[float, float, float]):
    """A widget: one slider a keyword, (lowest, highest, value); values are spread evenly in the logarithm when lowest > 0 is below a
    fiftieth of highest. Integers give an integer slider."""
    import ipywidgets as widgets

    controls = {}
    for name, (low, high, value) in ranges.items():
        common = {"value": value, "description": name, "continuous_update": False}
        if all(isinstance(x, int) for x in (low, high, value)):
            controls[name] = widgets.IntSlider(min=low, max=high, **common)
        elif low > 0 and high / low > 50:
            controls[name] = widgets.FloatLogSlider(min=np.log10(low), max=np.log10(high), step=0.05, **common)
        else:
            controls[name] = widgets.FloatSlider(min=low, max=high, step=(high - low) / 50, **common)
    # An image that is replaced needs no capture of the cell's output, which headless execution does not always survive.
    shown = widgets.Image(value=draw(**{name: control.value for name, control in controls.items()}).png, format="png")

    def redraw(change: object) -> None:
        shown.value = draw(**{name: control.value for name, control in controls.items()}).png

    for control in controls.values():
        control.observe(redraw, names="value")
    return widgets.VBox([*controls.values(), shown])


def _axes(count: int, width: float = 9.0, height: float = 3.2):
    figure, axes = plt.subplots(1, count, figsize=(width, height), layout="constrained")
    return figure, axes


def _normal(count: int, size: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


Function = Callable[[Tensor], Tensor]
"""f of the lesson: points [N, 1] -> values [N]."""
Estimator = Callable[[Function, Tensor, Tensor, float], Tensor]
"""(f, theta [P], noise [N, P], sigma) -> gradient samples [N, P]."""


@_picture
def spread(f: Function, first: Estimator, zeroth: Estimator, *, sigma: float = 0.3, samples: int = 1000) -> Figure:
    """The spread of single gradient samples of both estimators at theta = 1."""
    theta, noise = torch.ones(1), _normal(samples)
    figure, (left, right) = _axes(2)
    grid = torch.linspace(-1.5, 2.5, 100)
    left.plot(grid, f(grid[:, None]), color=EXACT)
    spots = theta + sigma * noise[:40]
    left.plot(spots, f(spots), ".", color=FIRST, alpha=0.6)
    left.set(title="f, and 40 samples around theta = 1", xlabel="theta")
    for order, estimator, colour in (("first", first, FIRST), ("zeroth", zeroth, ZEROTH)):
        g = estimator(f, theta, noise, sigma)[:, 0]
        right.hist(g.clamp(-6, 8).numpy(), 60, alpha=0.6, color=colour, density=True, label=f"{order} order: std {float(g.std()):.2f}")
    right.axvline(float(_smoothed(f, theta, sigma)[1]), color=EXACT, linestyle="--", label="true gradient")
    right.set(title="single gradient samples", xlabel="gradient")
    right.legend(fontsize=8)
    return figure


def _smoothed(f: Callable[[Tensor], Tensor], grid: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """E f(theta + sigma w) and its gradient, by quadrature over w."""
    w = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    weight = torch.exp(-0.5 * w.square())
    weight = weight / weight.sum()
    values = f((grid.double()[:, None] + sigma * w).reshape(-1, 1)).view(len(grid), -1)
    return values @ weight, (values * w) @ weight / sigma


@_picture
def along(
    f: Function, first: Estimator, zeroth: Estimator, *, sigma: float, samples: int = 1000, span: float = 2.0, title: str = "f"
) -> Figure:
    """What both estimators say along theta in [-span, span], beside the true gradient of the smoothed f."""
    noise, grid = _normal(samples), torch.linspace(-span, span, 61)
    figure, (left, right) = _axes(2)
    values, exact = _smoothed(f, grid, sigma)
    left.plot(grid, f(grid[:, None]), color="0.6", label="f")
    left.plot(grid, values, color=EXACT, label=f"J: smoothed over {sigma:.2g}")
    left.set(title=title, xlabel="theta")
    left.legend(fontsize=8)
    for order, estimator, colour in (("first", first, FIRST), ("zeroth", zeroth, ZEROTH)):
        g = torch.stack([estimator(f, theta[None], noise, sigma)[:, 0] for theta in grid])
        mean, error = g.mean(1), g.std(1) / samples**0.5
        right.plot(grid, mean, color=colour, label=f"{order} order, mean of {samples}")
        right.fill_between(grid, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.2, linewidth=0)
    right.plot(grid, exact, color=EXACT, linestyle="--", label="true gradient of J")
    right.set(title="what the estimators say", xlabel="theta")
    right.legend(fontsize=8)
    return figure


@functools.cache
def _policy(world_name: str, state_dim: int, action_dim: int) -> Actor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Actor(state_dim, action_dim, hidden=(8,))


SWINGING_UP = (0.5, 0.0, -2.0, 2.0)
"""Both angles [rad] and rates [rad/s] of the double pendulum: stretched, half a radian from upright and rising, where it is chaotic."""


def _start(name: str, world: EnvDynamics) -> Tensor:
    return torch.tensor(SWINGING_UP).repeat(world.count, 1) if name == "double_pendulum" else world.reset()


@functools.lru_cache(maxsize=32)
def _both_orders(name: str, horizon: int, samples: int, stiffness: float, every: int) -> tuple[PolicyGradients, PolicyGradients]:
    """First- and zeroth-order gradients of a small random policy in an environment, on the same samples."""
    world: Dynamics = EnvDynamics(name, samples, stiffness=stiffness, seed=2)
    policy, start = _policy(name, world.state_dim, world.action_dim), _start(name, world)
    noise = torch.randn(horizon, samples, world.action_dim, generator=torch.Generator().manual_seed(1))
    horizons = sorted({*range(every, horizon + 1, every), horizon})
    first = first_order(world, policy, start, noise, horizons=horizons)
    return first, zeroth_order(world, policy, start, noise, horizons=horizons)


def _plot_statistics(axes, gradients: PolicyGradients, colour: str, label: str, style: str = "-") -> None:
    table = horizon_table(gradients, resamples=0)
    for ax, column in zip(axes, ("variance", "esnr"), strict=True):
        ax.plot(table["horizon"], table[column], color=colour, linestyle=style, label=label)
        ax.set(yscale="log", xlabel="horizon H")


@_picture
def contact(stiffness: float = 64.0) -> Figure:
    """Hopper falling and landing: variance and ESNR of both orders, at the chosen stiffness of the ground (solid) and at 1 (dashed)."""
    figure, axes = _axes(2)
    for value, style in ((1.0, "--"), (float(stiffness), "-")):
        first, zeroth = _both_orders("hopper", 24, 64, value, 2)
        _plot_statistics(axes, first, FIRST, f"first order, x{value:.3g}", style)
        _plot_statistics(axes, zeroth, ZEROTH, f"zeroth order, x{value:.3g}", style)
    axes[0].set_title("variance (trace)")
    axes[1].set_title("ESNR")
    axes[1].legend(fontsize=7)
    return figure


class Separation(NamedTuple):
    """How far neighbouring starts are apart."""

    distance: Tensor
    """Of the angles [rad], shape [steps, pairs]."""
    rate: float
    """Of the median's exponential growth while it is below 0.3 rad [1 / step]: the slope of its logarithm by least squares."""
    fitted: np.ndarray
    """That growth [rad], one number a step while it lasts."""


@functools.cache
def separation(start: tuple[float, ...] = SWINGING_UP, *, pairs: int = 64, steps: int = 150, apart: float = 1e-3) -> Separation:
    """How neighbouring starts of the double pendulum part: pairs that begin `apart` rad from each other get the same torques.

    start: both angles [rad] and rates [rad/s].
    """
    world = EnvDynamics("double_pendulum", 2 * pairs, seed=2)
    policy = _policy("double_pendulum", world.state_dim, world.action_dim)
    state = torch.tensor(start).repeat(2 * pairs, 1)
    state[pairs:, 0] += apart
    noise, gaps = torch.randn(steps, pairs, 1, generator=torch.Generator().manual_seed(1)), []
    with torch.no_grad():
        for e in noise:
            action = policy(state[:pairs], e)
            state = world.advance(state, action.repeat(2, 1))
            gaps.append((state[:pairs, :2] - state[pairs:, :2]).norm(dim=-1))
    median = torch.stack(gaps).median(1).values
    near = int((median > 0.3).float().argmax()) or steps
    rate, offset = np.polyfit(np.arange(1, near + 1), median[:near].log().numpy(), 1)
    return Separation(torch.stack(gaps), float(rate), np.exp(offset + rate * np.arange(1, near + 1)))


@_picture
def chaos(horizon: int = 100) -> Figure:
    """The double pendulum: how 64 pairs of neighbouring starts part, and both estimators up to the chosen horizon."""
    figure, (left, *axes) = _axes(3, 11)
    gaps, rate, fitted = separation()
    steps = np.arange(1, len(gaps) + 1)
    left.plot(steps, gaps, color="0.75", lw=0.5)
    left.plot(steps, gaps.median(1).values, color=EXACT, label="median of 64 pairs")
    left.plot(steps[: len(fitted)], fitted, color=OTHER, ls="--", label=f"e times as far every {1 / rate:.0f} steps")
    left.axvline(horizon, color="0.7", lw=1)
    left.set(title="distance of neighbouring starts [rad]", xlabel="step", yscale="log", ylim=(5e-4, 50))
    left.legend(fontsize=8)
    first, zeroth = _both_orders("double_pendulum", horizon, 64, 1.0, max(1, horizon // 12))
    _plot_statistics(axes, first, FIRST, "first order")
    _plot_statistics(axes, zeroth, ZEROTH, "zeroth order")
    axes[0].set_title("variance (trace)")
    axes[1].set_title("ESNR")
    axes[1].legend(fontsize=8)
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


def who_wins(
    functions: dict[str, tuple[Function, float, float]], first: Estimator, zeroth: Estimator, *, samples: int = 100, pool: int = 2000
) -> pd.DataFrame:
    """Relative error of the mean of `samples` gradients, measured on every world of this lesson.

    The exact gradient is quadrature for the plain functions; for the simulated worlds (continuous, so the first-order estimate is
    unbiased) it is the mean of the whole pool of first-order samples.

    Args:
        functions: name -> f, theta and sigma.
        first: the first-order estimator.
        zeroth: the zeroth-order estimator.
        samples: N of each estimate.
        pool: samples that the estimates are drawn from.

    Returns:
        One row a world: the relative errors of both and of their mixture, and which is best.
    """
    rows, noise = [], _normal(pool, seed=8)
    with single_thread():
        for name, (f, theta, sigma) in functions.items():
            at = torch.tensor([theta])
            pair = (estimator(f, at, noise, sigma) for estimator in (first, zeroth))
            rows.append({"world": name} | _errors(*pair, _smoothed(f, at, sigma)[1].float(), samples))
        for label, name, horizon, stiffness in (
            ("hopper, H = 4", "hopper", 4, 1.0),
            ("hopper, H = 24, ground x1", "hopper", 24, 1.0),
            ("hopper, H = 24, ground x64", "hopper", 24, 64.0),
            ("double pendulum, H = 10", "double_pendulum", 10, 1.0),
            ("double pendulum, H = 100", "double_pendulum", 100, 1.0),
        ):
            pair = [g.at(horizon) for g in _both_orders(name, horizon, pool, stiffness, horizon)]
            rows.append({"world": label} | _errors(*pair, pair[0].mean(0), samples))
    table = pd.DataFrame(rows)
    names = ["first order", "zeroth order", "mixture"]
    return table.assign(best=table[names].idxmin(axis=1))
