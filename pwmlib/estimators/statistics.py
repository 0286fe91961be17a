"""What N per-sample gradients say: mean, bias, variance and expected signal-to-noise ratio, with bootstrap intervals.

    variance      tr Cov = sum_p Var_p (unbiased); mean_variance = tr Cov / P, what the released script plots
    esnr          sum_p E[g_p]^2 / sum_p Var_p                          Eq. 5: a ratio of sums
    esnr_released mean_p E[g_p]^2 / (Var_p + 1e-9)                      the released script: a mean of ratios

The squared mean of N samples is too large by Var / N in expectation; both ratios are given raw (as published) and with that bias
removed (`_unbiased`), which can be negative where there is no signal.

And whether a learned model's gradient points where the simulator's does: same states, same actions, d(sum of rewards) / d(actions).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pwmlib.model.dynamics import Dynamics

from .policy_gradients import PolicyGradients, check_samples
from .trajectories import action_adjoints, check_horizons, open_loop

__all__ = ["GradientStatistics", "gradient_fidelity", "gradient_statistics", "horizon_table", "reward_gradients"]


@dataclass(frozen=True)
class GradientStatistics:
    """Statistics of one set of per-sample gradients; `intervals` maps a name to its bootstrap interval (low, high)."""

    samples: int
    parameters: int
    squared_norm: float
    """|mean gradient|^2, raw."""
    variance: float
    mean_variance: float
    esnr: float
    esnr_unbiased: float
    esnr_released: float
    esnr_released_unbiased: float
    bias_norm: float | None
    """|mean - reference|; None without a reference."""
    bias_noise: float | None
    """What sampling alone would make of it: sqrt(tr Cov / N)."""
    intervals: dict[str, tuple[float, float]]


def gradient_statistics(
    gradients: Tensor, *, reference: Tensor | None = None, resamples: int = 200, level: float = 0.95, seed: int = 0
) -> GradientStatistics:
    """Compute the statistics of per-sample gradients [N, P].

    reference: a converged gradient [P], for the bias. resamples: bootstrap over samples (0: no intervals), percentiles around the
    unbiased estimate: the interval is of the true value, so a raw ratio, which is too large by about 1 / N, may lie above its middle.
    How often they contain the true ratio: data/results/benchmarks/esnr_coverage.csv.
    Raises ValueError for fewer than 2 samples or a wrong shape.
    """
    if gradients.dim() != 2:
        raise ValueError(f"gradient_statistics: gradients must be [N, P], got shape {tuple(gradients.shape)}")
    check_samples(gradients, "gradient_statistics")
    g = gradients.double()
    count, size = g.shape
    if reference is not None and reference.shape != (size,):
        raise ValueError(f"gradient_statistics: reference has shape {tuple(reference.shape)}, expected {(size,)}")
    weights = torch.full((1, count), 1 / count, dtype=torch.float64)
    point = {name: float(values[0]) for name, values in _weighted(g, weights).items()}
    intervals: dict[str, tuple[float, float]] = {}
    if resamples:
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples) / count
        tail = (1 - level) / 2
        unbiased = {"squared_norm": point["squared_norm"] - point["variance"] / count}
        unbiased |= {name: point[f"{name}_unbiased"] for name in ("esnr", "esnr_released")}
        for name, values in _weighted(g, torch.as_tensor(draws)).items():
            # A resample adds its own Var / N to a squared mean: the intervals are moved back by the resamples' mean excess.
            low, high = np.quantile(values.numpy(), [tail, 1 - tail]) - float(values.mean()) + unbiased.get(name, point[name])
            intervals[name] = (float(low), float(high))
    bias = None if reference is None else float((g.mean(0) - reference.double()).norm())
    noise = None if reference is None else float((point["variance"] / count) ** 0.5)
    return GradientStatistics(count, size, bias_norm=bias, bias_noise=noise, intervals=intervals, **point)


def _weighted(g: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """All statistics under sample weights [B, N] that sum to 1; weights 1/N give the plain ones."""
    count = len(g)
    correction = count / (count - 1)
    mean = weights @ g
    variance = ((weights @ g.square()) - mean.square()).clamp(min=0) * correction
    square, total = mean.square(), variance.sum(-1)
    ratio = square / (variance + 1e-9)
    unbiased = (square - variance / count) / (variance + 1e-9)
    return {
        "squared_norm": square.sum(-1),
        "variance": total,
        "mean_variance": total / g.shape[1],
        "esnr": square.sum(-1) / total,
        "esnr_unbiased": square.sum(-1) / total - 1 / count,
        "esnr_released": ratio.mean(-1),
        "esnr_released_unbiased": unbiased.mean(-1),
    }


def horizon_table(gradients: PolicyGradients, *, resamples: int = 200) -> pd.DataFrame:
    """Make a table of one row a horizon: `gradient_statistics` with columns <name>_low and <name>_high, and the mean return."""
    rows = []
    for k, horizon in enumerate(gradients.horizons):
        values = asdict(gradient_statistics(gradients.at(horizon), resamples=resamples))
        limits = values.pop("intervals")
        spread = {f"{name}_{end}": pair[i] for name, pair in limits.items() for i, end in enumerate(("low", "high"))}
        rows.append({"estimator": gradients.name, "horizon": horizon, "return": float(gradients.values[k].mean()), **values, **spread})
    return pd.DataFrame(rows)


def reward_gradients(
    dynamics: Dynamics, start: Tensor, actions: Tensor, *, gamma: float = 1.0, horizons: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Differentiate the returns of an open-loop rollout by its actions, at several horizons.

    start: [N, state_dim]; actions: [T, N, action_dim]. Rewards after an episode's end do not count. Returns d J^H / d actions,
    [K, T, N, action_dim], and which samples are still alive at each horizon, [K, N].
    """
    if start.dim() != 2 or actions.dim() != 3 or actions.shape[1:] != (len(start), dynamics.action_dim):
        raise ValueError(
            f"reward_gradients: start {tuple(start.shape)} and actions {tuple(actions.shape)} must be [N, state_dim] and "
            f"[T, N, {dynamics.action_dim}]"
        )
    chosen = check_horizons(horizons, len(actions))
    path = open_loop(dynamics, start, actions)
    adjoints = action_adjoints(dynamics, path, gamma=gamma, horizons=chosen)
    return adjoints, path.alive[torch.tensor(chosen, device=start.device)] > 0


def gradient_fidelity(
    model: Dynamics, simulator: Dynamics, model_start: Tensor, simulator_start: Tensor, actions: Tensor, *, gamma: float = 1.0,
    horizons: Sequence[int] | None = None, kind: str = "",
) -> pd.DataFrame:  # fmt: skip
    """Compare both gradients by cosine and norm ratio, one row a horizon.

    model_start, simulator_start: the same N states as either world describes them (latents and q, qd). kind: a label of these states
    or of the training time, copied into the table. Columns: horizon, kind, samples, ended (of the samples, by then, in the simulator),
    cosine (mean over samples), cosine_low and cosine_high (their quartiles), batch_cosine (of the mean gradients), norm_ratio (median
    of |model| / |simulator|), batch_norm_ratio.
    """
    if len(model_start) != len(simulator_start):
        raise ValueError(f"gradient_fidelity: {len(model_start)} states of the model and {len(simulator_start)} of the simulator")
    check_samples(simulator_start, "gradient_fidelity")
    chosen = check_horizons(horizons, len(actions))
    ours, _ = reward_gradients(model, model_start, actions, gamma=gamma, horizons=chosen)
    true, alive = reward_gradients(simulator, simulator_start, actions.to(simulator_start.dtype), gamma=gamma, horizons=chosen)
    rows = []
    for k, horizon in enumerate(chosen):
        a, b = (g[k, :horizon].transpose(0, 1).flatten(1).double() for g in (ours, true))
        cosine = F.cosine_similarity(a, b, dim=-1)
        quartiles = cosine.quantile(cosine.new_tensor([0.25, 0.75]))
        rows.append(
            {
                "horizon": horizon,
                "kind": kind,
                "samples": len(a),
                "ended": int((~alive[k]).sum()),
                "cosine": float(cosine.mean()),
                "cosine_low": float(quartiles[0]),
                "cosine_high": float(quartiles[1]),
                "batch_cosine": float(F.cosine_similarity(a.mean(0), b.mean(0), dim=0)),
                "norm_ratio": float((a.norm(dim=-1) / b.norm(dim=-1).clamp(min=1e-30)).median()),
                "batch_norm_ratio": float(a.mean(0).norm() / b.mean(0).norm().clamp(min=1e-30)),
            }
        )
    return pd.DataFrame(rows)
