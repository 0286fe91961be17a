"""Does a learned model's gradient point where the simulator's does? Same states, same actions, d(sum of rewards) / d(actions)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pwmlib.model.dynamics import Dynamics

from .samples import check_samples
from .trajectories import action_adjoints, check_horizons, open_loop

__all__ = ["gradient_fidelity", "reward_gradients"]


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
    adjoints, _ = action_adjoints(dynamics, path, gamma=gamma, horizons=chosen)
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
