"""How often does a nominal 95 % interval of the ESNR (Eq. 5) contain the true ratio, at 100 samples?

Gaussian and lognormal gradients of independent, equal components, and gradients of the double pendulum under a short SHAC policy (samples
of a population of 1000, whose own ratio is the truth). "shipped" is the interval of `gradient_statistics`: percentiles around the estimate
without its bias. Beside it the same around the raw ratio, BCa, delete-one jackknife and bootstrap-t; last, the variance's own interval.
All need only the Gram matrix of the samples. effective_dimension: tr(C)^2 / tr(C^2) of the covariance C.

Run: python benchmarks/esnr_coverage.py [--sets 1000] [--record]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from companion.double_pendulum.sweep import followed
from companion.double_pendulum.training import DOUBLE_PENDULUM_SCALES, ENV
from companion.running.results import save_table
from pwmlib.estimators import first_order_along, gradient_statistics
from pwmlib.optimizer.shac import SHAC
from pwmlib.sim.env import DifferentiableEnv, EnvDynamics

SAMPLES, RESAMPLES, POPULATION = 100, 200, 1000
TAILS = np.array([0.025, 0.975])


def moments(gram: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Ratio without its bias, variance, and squared standard error (first order) under weights [B, N]; gram: [R, N, N]."""
    count = gram.shape[-1]
    inner = weights @ gram
    square = (inner * weights).sum(-1)
    lengths = np.diagonal(gram, axis1=1, axis2=2)
    variance = (lengths @ weights.T - square) * count / (count - 1)
    apart = lengths[:, None] - 2 * inner + square[..., None]
    influence = (2 * (inner - square[..., None]) - (square / variance)[..., None] * (apart - variance[..., None])) / variance[..., None]
    return square / variance - 1 / count, variance, (influence**2 * weights).sum(-1) / count


def intervals(gram: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> [2, R] of every set of samples."""
    count = gram.shape[-1]
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    (value, variance, error) = (x[:, 0] for x in moments(gram, np.full((1, count), 1 / count)))
    drawn, drawn_variance, drawn_error = moments(gram, draws)
    ends, spread = np.quantile(drawn, TAILS, axis=1), np.quantile(drawn_variance, TAILS, axis=1)
    shipped = ends - drawn.mean(1) + value
    left_out = (1 - np.eye(count)) / (count - 1)
    square = (left_out @ gram * left_out).sum(-1)
    others = square / ((np.diagonal(gram, axis1=1, axis2=2) @ left_out.T - square) * (count - 1) / (count - 2)) - 1 / (count - 1)
    centred = others.mean(1, keepdims=True) - others
    jackknife = ((count - 1) / count * (centred**2).sum(1)) ** 0.5
    bias = norm.ppf(np.clip((drawn - 1 / count < value[:, None]).mean(1), 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    shifted = bias + norm.ppf(TAILS)[:, None]
    levels = norm.cdf(bias + shifted / (1 - (centred**3).sum(1) / (6 * (centred**2).sum(1) ** 1.5) * shifted))
    bca = np.array([[np.quantile(x, p) for x, p in zip(drawn, level, strict=True)] for level in levels]) - 1 / count
    middle = gram - gram.mean(1, keepdims=True) - gram.mean(2, keepdims=True) + gram.mean((1, 2), keepdims=True)
    squares = ((middle**2).sum((1, 2)) - (np.diagonal(middle, axis1=1, axis2=2) ** 2).sum(1)) / (count * (count - 1))
    error, drawn_error = error + 2 * squares / (count * variance) ** 2, drawn_error + 2 * squares[:, None] / (count * drawn_variance) ** 2
    student = np.quantile((drawn - 1 / count - value[:, None]) / drawn_error**0.5, TAILS, axis=1)
    return {
        "shipped": shipped,
        "around the raw ratio": shipped + 1 / count,
        "BCa": bca,
        "jackknife": value + norm.ppf(TAILS)[:, None] * jackknife,
        "bootstrap-t": value - student[::-1] * error**0.5,
        "variance, shipped": spread - drawn_variance.mean(1) + variance,
    }


def cases(sets: int) -> Iterator[tuple[str, float, float, float, np.ndarray]]:
    """Kind, effective dimension, true ratio, true variance, gram matrices [R, N, N]."""
    rng = np.random.default_rng(0)
    for kind, unit in (("Gaussian", 1.0), ("lognormal", np.e * (np.e - 1))):
        for size in (2, 3, 30):
            for ratio in (0.02, 0.06, 0.2):
                g = rng.normal(size=(sets, SAMPLES, size))
                g = (g if kind == "Gaussian" else np.exp(g) - np.exp(0.5)) + (ratio * unit) ** 0.5
                yield kind, size, ratio, size * unit, g @ g.transpose(0, 2, 1)
    scale = DOUBLE_PENDULUM_SCALES["quick"]
    learner = SHAC(DifferentiableEnv(ENV, scale.envs, seed=0), scale.shac, seed=0)
    for _ in range(scale.shac.updates):
        learner.update()
    world = EnvDynamics(ENV, POPULATION, seed=1)
    start, noise = world.reset(), torch.randn(50, POPULATION, 1, generator=torch.Generator().manual_seed(0))
    seen, actions = followed(world, learner.actor, start, noise)
    horizons = [1, 4, 16, 50]
    found = first_order_along(world, start, actions, policy=learner.actor, seen=seen, noise=noise, horizons=horizons)
    for horizon in horizons:
        g = found.at(horizon).numpy()
        gram, middle = g @ g.T, g - g.mean(0)
        covariance = middle @ middle.T / POPULATION
        variance = covariance.trace()
        rows = rng.integers(POPULATION, size=(sets, SAMPLES))
        chosen = np.stack([gram[np.ix_(i, i)] for i in rows])
        first = gradient_statistics(torch.from_numpy(g[rows[0]])).intervals["esnr"]
        np.testing.assert_allclose(intervals(chosen[:1])["shipped"][:, 0], first, rtol=1e-6)
        effective = variance**2 / (covariance**2).sum()
        yield f"double pendulum, H = {horizon}", effective, float((g.mean(0) ** 2).sum() / variance), variance, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=1000, help="sets of samples of each case")
    parser.add_argument("--record", action="store_true", help="write data/results/benchmarks/esnr_coverage.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind, effective, ratio, variance, grams in cases(arguments.sets):
        parts = [intervals(part) for part in np.array_split(grams, max(1, len(grams) // 50))]
        for name in parts[0]:
            low, high = np.concatenate([part[name] for part in parts], axis=1)
            truth = variance if name.startswith("variance") else ratio
            line = {"gradients": kind, "effective_dimension": effective, "esnr": ratio, "samples": SAMPLES, "interval": name}
            line |= {"coverage": ((low <= truth) & (truth <= high)).mean(), "too_high": (low > truth).mean()}
            rows.append(line | {"relative_width": (high - low).mean() / truth, "sets": len(low)})
    table = pd.DataFrame(rows)
    print(table.pivot(index=["gradients", "effective_dimension", "esnr"], columns="interval", values="coverage").to_string())
    if arguments.record:
        save_table("benchmarks/esnr_coverage", table, f"python benchmarks/esnr_coverage.py --sets {arguments.sets} --record")


if __name__ == "__main__":
    main()
