"""The ball and the wall: a discontinuous objective, smooth surrogates of it, and gradient descent on each (Sec. 3.1, App. A)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import pandas as pd
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..nets import simnorm
from ..settings import NUMBER, Beta, Count, NonNegative, Positive, Real, SettingError, Whole, settings

__all__ = ["BallWall", "Descent", "Surrogate", "SurrogateConfig", "compare_surrogates", "descend"]

THETA = (-math.pi, math.pi)
"""Domain of the throwing angle, rad."""


Size = Annotated[float, Field(gt=0, le=1000), NUMBER]


@settings
class BallWall:
    """A ball thrown at angle theta from the origin towards a wall; J(theta) = -x(T) is minimised (Eq. 11, corrected).

    x(t) = v cos(theta) t + a t^2 / 2, y(t) = v sin(theta) t - g t^2 / 2. The ball reaches the wall's place w at
    t_c = (-v cos(theta) + sqrt(v^2 cos^2(theta) + 2 a w)) / a. When t_c <= T and y(t_c) < h it is stopped there, x(T) = w.
    """

    speed: Size = 10.0
    """v, m/s."""
    acceleration: Size = 1.0
    """a, horizontal, m/s^2. Eq. 11 prints g here; the released script uses 1."""
    gravity: Size = 9.81
    """g, m/s^2."""
    wall: Size = 5.0
    """w, the wall's place (not its width), m."""
    height: Annotated[float, Field(ge=-1000, le=1000), NUMBER] = 0.0
    """h, the wall's upper edge above the throwing point, m."""
    time: Size = 2.0
    """T, s."""
    contact_time: Literal["corrected", "released"] = "corrected"
    """"released": sqrt(v^2 cos^2 + a w) without the factor 2, as Eq. 11 and the script have it; moves the optimum to 0.123 rad."""

    def contact(self, theta: Tensor) -> Tensor:
        """t_c in seconds, shape of theta: when the ball is at the wall's place."""
        vx = self.speed * torch.cos(theta)
        factor = 2.0 if self.contact_time == "corrected" else 1.0
        return (-vx + (vx.square() + factor * self.acceleration * self.wall).sqrt()) / self.acceleration

    def clears(self, theta: Tensor) -> Tensor:
        """Bool, shape of theta: the ball passes over the wall, or never reaches it within T."""
        contact = self.contact(theta)
        y = self.speed * torch.sin(theta) * contact - 0.5 * self.gravity * contact.square()
        return (y >= self.height) | (contact > self.time)

    def objective(self, theta: Tensor) -> Tensor:
        """J(theta) in metres, any shape; differentiable almost everywhere, with jumps."""
        free = self.speed * torch.cos(theta) * self.time + 0.5 * self.acceleration * self.time**2
        return -torch.where(self.clears(theta), free, torch.full_like(free, self.wall))

    def warnings(self) -> list[str]:
        """Why this world cannot answer what the study asks, in words; empty where some throws cross the wall and some do not."""
        theta = torch.linspace(*THETA, 20_001, dtype=torch.float64)
        reaching = self.contact(theta) <= self.time
        crossing = reaching & self.clears(theta)
        if not reaching.any():
            return [f"Warning: no throw reaches the wall at {self.wall:g} m within {self.time:g} s, so that J has no cliff to cross."]
        if not crossing.any():
            return [
                f"Warning: no throw crosses this wall, whose upper edge is at {self.height:g} m: the plateau before it is the optimum, and "
                "a descent that stays there counts as having found it."
            ]
        if crossing[reaching].all():
            return ["Warning: every throw that reaches this wall crosses it, so that J has no cliff to cross."]
        return []

    def optimum(self, points: int = 200_001) -> tuple[float, float]:
        """(theta*, J*) on a fine grid, in float64."""
        theta = torch.linspace(*THETA, points, dtype=torch.float64)
        values = self.objective(theta)
        best = int(values.argmin())
        return float(theta[best]), float(values[best])


@settings
class SurrogateConfig:
    """A model of J with two hidden layers; the paper's numbers are the defaults."""

    kind: Literal["relu", "layernorm_mish", "simnorm"] = "relu"
    hidden: Count = 32
    samples: Count = 1000
    epochs: Count = 100
    batch: Count = 50
    lr: Positive = 2e-3
    group: Count = 8
    """SimNorm group size."""

    def __post_init__(self) -> None:
        if self.hidden % self.group:
            raise SettingError("group", self.group, f"must be a divisor of hidden={self.hidden}")


class Surrogate(nn.Module):
    """One model per seed, all trained at once: theta [seeds, n] -> J [seeds, n].

    relu: Linear-ReLU twice; layernorm_mish: Linear-LayerNorm-Mish twice; simnorm: Linear-LayerNorm-Mish, Linear-LayerNorm-SimNorm.
    Then a linear output. Input theta / pi and output standardised with the training data's mean and deviation.
    """

    def __init__(self, config: SurrogateConfig, seeds: int):
        super().__init__()
        self.config = config
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        sizes = (1, config.hidden, config.hidden, 1)
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            weight, bias = torch.empty(seeds, a, b), torch.empty(seeds, 1, b)
            for s in range(seeds):
                generator = torch.Generator().manual_seed(1000 * s + a + b)
                weight[s].uniform_(-(a**-0.5), a**-0.5, generator=generator)
                bias[s].uniform_(-(a**-0.5), a**-0.5, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))
        self.losses = torch.empty(0)
        """Mean training error of each epoch, in units of the data's variance, shape [epochs, seeds]; filled by `fit_surrogate`."""
        self.register_buffer("mean", torch.zeros(seeds, 1))
        self.register_buffer("std", torch.ones(seeds, 1))

    def forward(self, theta: Tensor) -> Tensor:
        h = theta.unsqueeze(-1) / math.pi
        for i in range(2):
            h = torch.baddbmm(self.biases[i], h, self.weights[i])
            if self.config.kind == "relu":
                h = F.relu(h)
                continue
            h = F.layer_norm(h, h.shape[-1:])
            h = simnorm(h, self.config.group) if self.config.kind == "simnorm" and i == 1 else F.mish(h)
        return torch.baddbmm(self.biases[2], h, self.weights[2]).squeeze(-1) * self.std + self.mean


def fit_surrogate(world: BallWall, config: SurrogateConfig, seeds: int, device: str | torch.device = "cpu") -> Surrogate:
    """Regress J on uniform samples of theta; each seed has its own samples, initial weights and order."""
    model = Surrogate(config, seeds).to(device)
    generators = [torch.Generator().manual_seed(s) for s in range(seeds)]
    low, high = THETA
    theta = (torch.stack([torch.rand(config.samples, generator=g) for g in generators]) * (high - low) + low).to(device)
    target = world.objective(theta)
    model.mean.copy_(target.mean(1, keepdim=True))
    model.std.copy_(target.std(1, keepdim=True))
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    losses = torch.zeros(config.epochs, seeds)
    for epoch in range(config.epochs):
        order = torch.stack([torch.randperm(config.samples, generator=g) for g in generators]).to(device)
        for part in order.split(config.batch, 1):
            x, y = theta.gather(1, part), target.gather(1, part)
            # Sum over seeds of each seed's mean error: the seeds do not influence each other.
            errors = ((model(x) - y) / model.std).square()
            optimiser.zero_grad()
            errors.mean(1).sum().backward()
            optimiser.step()
            losses[epoch] += errors.detach().sum(1).cpu() / config.samples
    model.losses = losses
    return model.requires_grad_(False)


@settings
class Descent:
    """Gradient descent on theta, projected to the domain."""

    start: Real = -math.pi
    steps: Count = 2000
    lr: Positive = 0.01
    momentum: Beta = 0.0
    noise: NonNegative = 0.0
    """Standard deviation of theta, rad; the gradient is then the mean over `noise_samples` perturbed angles."""
    noise_samples: Count = 32
    seed: Whole = 0


def descend(objective, config: Descent, seeds: int, device: str | torch.device = "cpu") -> Tensor:
    """Follow the gradient of objective: theta [seeds, n] -> [seeds, n]. Returns the path, shape [steps + 1, seeds].

    With noise, each step sees fresh perturbations; on a surrogate that is the first-order gradient of the smoothed objective.
    """
    generator = torch.Generator().manual_seed(config.seed)
    theta = torch.full((seeds, 1), config.start, device=device)
    velocity, path = torch.zeros_like(theta), [theta]
    for _ in range(config.steps):
        samples = config.noise_samples if config.noise else 1
        offsets = config.noise * torch.randn(seeds, samples, generator=generator).to(device)
        point = (theta + offsets).clamp(*THETA).requires_grad_()
        (gradient,) = torch.autograd.grad(objective(point).mean(1).sum(), point)
        velocity = config.momentum * velocity + gradient.sum(1, keepdim=True)
        theta = (theta - config.lr * velocity).clamp(*THETA)
        path.append(theta)
    return torch.stack(path).squeeze(-1).cpu()


def compare_surrogates(
    world: BallWall,
    surrogates: dict[str, SurrogateConfig],
    descents: dict[str, Descent],
    *,
    seeds: int,
    device: str | torch.device = "cpu",
) -> tuple[pd.DataFrame, dict[str, Surrogate], dict[tuple[str, str], Tensor]]:
    """Fit each surrogate for all seeds and descend on it and on the true J.

    Returns (tidy table, fitted surrogates, paths by (surrogate, descent)). Columns: surrogate, descent, seed, rmse [m], argmin_gap
    [m], gap [m], theta [rad]. Gaps are J - J* on the TRUE objective; argmin_gap is of the surrogate's own global minimum.
    """
    _, best = world.optimum()
    grid = torch.linspace(*THETA, 4001).expand(seeds, -1).to(device)
    rows, models, paths = [], {}, {}
    objectives: dict[str, object] = {"true J": world.objective}
    for name, config in surrogates.items():
        models[name] = objectives[name] = fit_surrogate(world, config, seeds, device)
    for name, objective in objectives.items():
        values = objective(grid)
        rmse = (values - world.objective(grid)).square().mean(1).sqrt()
        argmin_gap = world.objective(grid.gather(1, values.argmin(1, keepdim=True)))[:, 0] - best
        for label, descent in descents.items():
            path = paths[name, label] = descend(objective, descent, seeds, device)
            gap = world.objective(path[-1]) - best
            for s in range(seeds):
                row = {"surrogate": name, "descent": label, "seed": s, "rmse": rmse[s].item(), "argmin_gap": argmin_gap[s].item()}
                rows.append({**row, "gap": gap[s].item(), "theta": path[-1, s].item()})
    return pd.DataFrame(rows), {name: model.cpu() for name, model in models.items()}, paths
