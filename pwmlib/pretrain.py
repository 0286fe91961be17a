"""Pre-training of a world model on offline slices (Algorithm 1, first stage; Eq. 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .config import WorldModelTraining
from .pwm import NonFiniteError, check_finite
from .runs import Run, train
from .world_model import WorldModel, world_model_loss

__all__ = ["SliceSource", "WorldModelTrainer", "held_out_fit", "pretrain_world_model"]


class SliceSource(Protocol):
    """Anything that gives training slices; `pwmlib.episodes.SliceSampler` does."""

    def slices(self, batch: int, horizon: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """obs [horizon + 1, batch, n], action [horizon, batch, m], reward [horizon, batch], task [batch]. Where slices may run into the
        end of an episode also valid [horizon, batch], 0 where it has ended before, and terminated [horizon, batch], boolean."""
        ...


class WorldModelTrainer:
    """Adam on Eq. 10 over random slices; `update` is one step. `state_dict` continues it bit-identically."""

    def __init__(
        self, model: WorldModel, data: SliceSource, config: WorldModelTraining | None = None, *, seed: int = 0, decay_from: int = 0
    ):
        """decay_from: updates before the learning rate begins to fall, where `final_lr` says that it does."""
        self.model, self.data, self.config, self.decay_from = model, data, config or WorldModelTraining(), decay_from
        c = self.config
        encoder = list(model.encoder.parameters()) if model.encoder is not None else []
        embedding = list(model.task_embedding.parameters()) if model.task_embedding is not None else []
        special = {id(p) for p in encoder + embedding}
        groups = [{"params": [p for p in model.parameters() if id(p) not in special], "scale": 1.0}]
        if encoder:
            groups.append({"params": encoder, "scale": c.encoder_lr_scale})
        if embedding and c.train_task_embedding:
            groups.append({"params": embedding, "scale": 1.0})
        self.parameters = [p for g in groups for p in g["params"]]
        self.optimiser = torch.optim.Adam(groups, lr=c.lr, fused=True)
        self.rng = np.random.default_rng(seed)
        self.step = 0

    def update(self) -> dict[str, float]:
        """One gradient step. Returns scalars to log; raises NonFiniteError, then nothing of the model has changed."""
        c = self.config
        device = self.model.obs_mean.device
        rng_state, touched = self.rng.bit_generator.state, {x: x.detach().clone() for x in self._touched()}
        batch = [x.to(device) for x in self.data.slices(c.batch, c.horizon, self.rng)]
        batch, ends = batch[:4], dict(zip(("valid", "terminated"), batch[4:], strict=False))
        with torch.autocast(device.type, torch.bfloat16, enabled=c.precision == "bfloat16"):
            loss, parts = world_model_loss(self.model, *batch, c.loss, **ends)
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for p, g in zip(self.parameters, gradients, strict=True):
            p.grad = g
        norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
        try:
            check_finite(self.step + 1, **{f"world_model_{k}_loss": v for k, v in parts.items()}, world_model_gradient_norm=norm)
        except NonFiniteError as error:
            self.rng.bit_generator.state = rng_state
            with torch.no_grad():
                for x, before in touched.items():
                    x.copy_(before)
            raise NonFiniteError(f"{error}; the world model is back in the state before it") from error
        torch.nn.utils.clip_grads_with_norm_(self.parameters, c.grad_norm, norm)
        done = max(0, self.step - self.decay_from) / max(1, c.updates - self.decay_from)
        lr = c.lr if c.final_lr is None else c.lr + (c.final_lr - c.lr) * min(1.0, done)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["scale"]
        self.optimiser.step()
        self.step += 1
        return {"loss": float(loss.detach()), "grad_norm": float(norm), **{f"{k}_loss": float(v) for k, v in parts.items()}}

    def _touched(self) -> list[Tensor]:
        """What computing the loss may change: a spectral norm's vectors, an embedding longer than its norm allows."""
        embedding = self.model.task_embedding
        return [*self.model.buffers(), *([embedding.weight] if embedding is not None else [])]

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]
        self.step = int(state["step"])


def pretrain_world_model(
    model: WorldModel,
    data: SliceSource,
    config: WorldModelTraining | None = None,
    *,
    seed: int = 0,
    run: Run | None = None,
    checkpoint_every: int = 100,
    progress: Callable[[int], None] | None = None,
) -> WorldModelTrainer:
    """Algorithm 1, first stage: train a world model on offline data, in `config.updates` updates. Returns the trainer (`.model`).

    With a `run`, progress is saved in its folder and an interrupted call continues there.
    """
    trainer = WorldModelTrainer(model, data, config, seed=seed)
    total = trainer.config.updates
    train(run, trainer, total, checkpoint_every=checkpoint_every, log_every=max(1, total // 100), progress=progress)
    return trainer


@torch.no_grad()
def held_out_fit(model: WorldModel, data: SliceSource, *, horizon: int = 16, batch: int = 512, seed: int = 0) -> dict[str, float]:
    """How predicted rewards follow recorded ones at the first and the last of `horizon` open-loop steps.

    correlation_first, correlation_last: in symlog space. slope_first, slope_last: least-squares slope of predicted over recorded rewards in
    their own units; gradients are off by about the same factor, which no correlation shows.
    data should hold episodes that were not trained on; steps after an episode's end are left out. NaN where the recorded
    rewards do not vary.
    """
    found_slices = data.slices(batch, horizon, np.random.default_rng(seed))
    obs, action, reward, task, *ends = (x.to(model.obs_mean.device) for x in found_slices)
    happened = ends[0].bool() if ends else torch.ones_like(reward, dtype=torch.bool)
    z = model.encode(obs[0], task)
    found = {}
    for t in range(horizon):
        if t in (0, horizon - 1):
            predicted = model.reward(z, action[t], task, symexp=True)
            pair = torch.stack([predicted, reward[t]])[:, happened[t]]
            end = "first" if t == 0 else "last"
            found[f"correlation_{end}"] = float(torch.corrcoef(torch.sign(pair) * torch.log1p(pair.abs()))[0, 1])
            covariance = torch.cov(pair)
            found[f"slope_{end}"] = float(covariance[0, 1] / covariance[1, 1])
        z = model.next(z, action[t], task)
    return found
