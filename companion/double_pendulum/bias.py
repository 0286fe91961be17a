"""Is a low variance bought with bias? Policy gradients through models of three sizes, two training horizons and three lengths of training,
beside the true pendulum's: the same policy, start states and actions for all (Sec. 3.2 with the power to decide)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from companion.double_pendulum.sweep import followed
from companion.double_pendulum.training import (
    DOUBLE_PENDULUM_SCALES,
    ENV,
    DoublePendulumScale,
    load_model,
    load_policy,
    milestone_updates,
    model_job,
    shac_job,
)
from companion.running.jobs import Job, values_of
from companion.running.runs import Run, single_thread
from pwmlib.estimators import PolicyGradients, first_order_along, gradient_statistics
from pwmlib.model.world_model import WORLD_MODEL_SIZES, WorldModelConfig
from pwmlib.sim.env import EnvDynamics

EVERY = 4
"""Steps between two horizons."""

BIAS_SCALE = replace(DOUBLE_PENDULUM_SCALES["laptop"], samples=1000, horizons=100)
"""Ten times the samples of scale laptop, and twice its horizons."""


def sizes() -> list[WorldModelConfig]:
    """The model of scale quick, and the published sizes 1M and 5M."""
    widths = ("latent_dim", "encoder_hidden", "dynamics_hidden", "reward_hidden")
    published = [{name: getattr(WORLD_MODEL_SIZES[size], name) for name in widths} for size in ("1M", "5M")]
    return [DOUBLE_PENDULUM_SCALES["quick"].model, *(replace(BIAS_SCALE.model, **each) for each in published)]


def bias_study(
    scale: DoublePendulumScale, models: Sequence[WorldModelConfig], runs_dir: str | Path, *, workers: int = 2, progress: bool = True
) -> pd.DataFrame:
    """Train every model and compare its gradients; finished stages are read from `runs_dir`.

    Returns:
        One row a world, updates of its training and horizon: mean_variance and esnr with their intervals, esnr_unbiased; beside the true
        gradients: cosine (mean over samples), mean_cosine (of the means over samples, with its interval), bias (|difference of the means|,
        what sampling alone makes of it taken off) and true_norm (likewise). The true pendulum's own mean_cosine is that of two halves of
        its samples.
    """
    how: dict[str, Any] = {"workers": workers, "progress": progress}
    seeds = [Job(f"seed {s}", shac_job, {"scale": scale, "runs_dir": str(runs_dir), "seed": s}) for s in range(scale.shac_seeds)]
    shac = values_of(seeds, description="SHAC", **how)
    given = {"replays": [row["folder"] for row in shac], "runs_dir": str(runs_dir)}
    each = [(replace(scale, model=config), h) for config in reversed(models) for h in reversed(scale.train_horizons)]
    jobs = [Job(f"H = {h}, {s.model.latent_dim} latents", model_job, {"scale": s, "horizon": h, **given}) for s, h in each]
    trained = values_of(jobs, description="world models", **how)
    common = {"policy": max(shac, key=lambda row: row["return"])["folder"], "runs_dir": str(runs_dir)}
    jobs = [Job("true", gradients_job, {"scale": scale, "horizon": 0, "folder": "", **common})]
    for (s, h), row in zip(each, trained, strict=True):
        jobs.append(
            Job(f"H = {h}, {s.model.latent_dim} latents", gradients_job, {"scale": s, "horizon": h, "folder": row["folder"], **common})
        )
    return pd.DataFrame([line for lines in values_of(jobs, description="gradients", **how) for line in lines])


def gradients_job(scale: DoublePendulumScale, horizon: int, folder: str, policy: str, runs_dir: str) -> list[dict[str, Any]]:
    """Gradients of the true pendulum, or of one model at each of `milestone_updates`; a run. folder: the model's, "" for the pendulum."""
    of = {"samples": scale.samples, "horizons": scale.horizons, "resamples": scale.resamples, "every": EVERY}
    run = Run(runs_dir, "bias", Path(folder).name or "true", {**of, "model": Path(folder).name, "policy": Path(policy).name})

    def work(run: Run) -> list[dict[str, Any]]:
        true, actor = EnvDynamics(ENV, scale.samples, seed=1), load_policy(scale, policy)
        start, noise = true.reset(), torch.randn(scale.horizons, scale.samples, 1, generator=torch.Generator().manual_seed(0))
        seen, acted = followed(true, actor, start, noise)
        chosen = [1, *range(EVERY, scale.horizons + 1, EVERY)]
        same = {"policy": actor, "seen": seen, "noise": noise, "horizons": chosen}
        truth = first_order_along(true, start, acted, **same)

        def along(found: PolicyGradients | None, **head: Any) -> list[dict[str, Any]]:
            """Lines of a world's gradients; None: of the true ones."""
            lines = []
            for h in chosen:
                right = truth.at(h)
                lines.append({**head, "horizon": h, **_statistics(found.at(h) if found else right, right, scale.resamples)})
            return lines

        if not folder:
            return along(None, world="true", weights=0, train_horizon=0, updates=0)
        lines = []
        for updates in milestone_updates(scale):
            model = load_model(scale, folder, updates)
            head = {"world": f"model, H = {horizon}", "weights": sum(p.numel() for p in model.model.parameters())}
            found = first_order_along(model, model.encode(true.observe(start)), acted, **same)
            lines += along(found, **head, train_horizon=horizon, updates=updates)
        return lines

    with single_thread():
        return run.execute(work)


def _statistics(found: Tensor, true: Tensor, resamples: int) -> dict[str, float]:
    """What is said of gradients [N, P] beside the true ones of the same samples, which may be themselves."""
    own, count = gradient_statistics(found, resamples=resamples), len(found)
    line = {"mean_variance": own.mean_variance, "esnr": own.esnr, "esnr_unbiased": own.esnr_unbiased}
    for name in ("mean_variance", "esnr"):
        line[f"{name}_low"], line[f"{name}_high"] = own.intervals[name]
    gap, whole = (gradient_statistics(g, resamples=0) for g in (found - true, true))
    line |= {name: max(0.0, s.squared_norm - s.variance / count) ** 0.5 for name, s in (("bias", gap), ("true_norm", whole))}
    line["cosine"] = float(F.cosine_similarity(found, true, dim=-1).mean())
    pair = (found[::2], found[1::2]) if found is true else (found, true)
    draws = np.random.default_rng(0).multinomial(len(pair[0]), np.full(len(pair[0]), 1 / len(pair[0])), size=resamples)
    weights = torch.as_tensor(draws / len(pair[0]))
    cosines = F.cosine_similarity(weights @ pair[0], weights @ pair[1], dim=-1)
    line["mean_cosine"] = float(F.cosine_similarity(pair[0].mean(0), pair[1].mean(0), dim=0))
    line["mean_cosine_low"], line["mean_cosine_high"] = cosines.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return line
