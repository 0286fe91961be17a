"""How well a world model predicts episodes that it has not seen."""

import numpy as np
import torch

from pwmlib.model.training import SliceSource
from pwmlib.model.twohot import symlog
from pwmlib.model.world_model import WorldModel

__all__ = ["held_out_fit"]


@torch.no_grad()
def held_out_fit(model: WorldModel, data: SliceSource, *, horizon: int = 16, batch: int = 512, seed: int = 0) -> dict[str, float]:
    """Measure how predicted rewards follow recorded ones at the first and the last of `horizon` open-loop steps.

    correlation_first, correlation_last: in symlog space. slope_first, slope_last: least-squares slope of predicted over recorded rewards in
    their own units; gradients are off by about the same factor, which no correlation shows.
    data should hold episodes that were not trained on; steps after an episode's end are left out. NaN where the recorded
    rewards do not vary.
    """
    slices = data.slices(batch, horizon, np.random.default_rng(seed))
    obs, action, reward, task, *ends = (x.to(model.obs_mean.device) for x in slices)
    happened = ends[0].bool() if ends else torch.ones_like(reward, dtype=torch.bool)
    latents, found = model.unroll(obs[0], action, task), {}
    for end, t in (("first", 0), ("last", horizon - 1)):
        pair = torch.stack([model.reward(latents[t], action[t], task, symexp=True), reward[t]])[:, happened[t]]
        found[f"correlation_{end}"] = float(torch.corrcoef(symlog(pair))[0, 1])
        covariance = torch.cov(pair)
        found[f"slope_{end}"] = float(covariance[0, 1] / covariance[1, 1])
    return found
