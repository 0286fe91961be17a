"""Learned surrogates of the ball's landscape, and gradient descent on each (Sec. 3.1, App. A)."""

import math
from typing import Literal

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwmlib.model.layers import simnorm
from pwmlib.settings import Beta, Count, NonNegative, Positive, Real, SettingError, Whole, settings
from pwmlib.sim.closed_form.ball_wall import THETA, BallWall


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
    world: BallWall, surrogates: dict[str, SurrogateConfig], descents: dict[str, Descent], *, seeds: int,
    device: str | torch.device = "cpu",
) -> tuple[pd.DataFrame, dict[str, Surrogate], dict[tuple[str, str], Tensor]]:  # fmt: skip
    """Fit each surrogate for all seeds and descend on it and on the true J.

    Returns (tidy table, fitted surrogates, paths by (surrogate, descent)). Columns: surrogate, descent, seed, rmse [m], argmin_gap
    [m], gap [m], theta [rad]. Gaps are J - J* on the TRUE objective; argmin_gap is of the surrogate's own global minimum.
    """
    _, best = world.optimum()
    grid = torch.linspace(*THETA, 4001).expand(seeds, -1).to(device)
    tables, paths = [], {}
    models = {name: fit_surrogate(world, config, seeds, device) for name, config in surrogates.items()}
    for name, objective in {"true J": world.objective, **models}.items():
        values = objective(grid)
        rmse = (values - world.objective(grid)).square().mean(1).sqrt()
        argmin_gap = world.objective(grid.gather(1, values.argmin(1, keepdim=True)))[:, 0] - best
        for label, descent in descents.items():
            path = paths[name, label] = descend(objective, descent, seeds, device)
            numbers = {"rmse": rmse, "argmin_gap": argmin_gap, "gap": world.objective(path[-1]) - best, "theta": path[-1]}
            columns = {column: x.double().cpu().numpy() for column, x in numbers.items()}
            tables.append(pd.DataFrame({"surrogate": name, "descent": label, "seed": range(seeds), **columns}))
    return pd.concat(tables, ignore_index=True), {name: model.cpu() for name, model in models.items()}, paths
