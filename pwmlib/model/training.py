"""Pre-training of a world model on offline slices (Algorithm 1, first stage; Eq. 10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pwmlib.continuation import Continued
from pwmlib.errors import NonFiniteError, check_finite, one_of
from pwmlib.settings import Count, NonNegative, Positive, settings

from .world_model import WorldModel, WorldModelLossConfig, world_model_loss

__all__ = ["SliceSource", "Variant", "WorldModelTrainer", "WorldModelTraining", "gradient_step"]


class SliceSource(Protocol):
    """Anything that gives training slices, as `pwmlib.data.SliceSampler` does."""

    def slices(self, batch: int, horizon: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Draw obs [horizon + 1, batch, n], action [horizon, batch, m], reward [horizon, batch] and task [batch].

        Where slices may run into the end of an episode there are also valid [horizon, batch], 0 where it has ended before, and
        terminated [horizon, batch], boolean.
        """
        ...


def gradient_step(optimiser: torch.optim.Optimizer, loss: Tensor, *, lr: float | None, max_norm: float, update: int, name: str) -> float:
    """Differentiate a loss, clip the gradient to `max_norm` and take one step; returns the norm before it was clipped.

    lr: the learning rate of this step, for each group of parameters times its "scale" where it has one; None: it stays.
    Raises NonFiniteError, which names `update` and `name`, for a loss or gradient that is NaN or infinite; then nothing has moved.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
    check_finite(update, **{f"{name}_loss": loss, f"{name}_gradient_norm": norm})
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = None if g is None else g.contiguous()  # fused Adam reads memory in the parameter's order
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    for group in optimiser.param_groups if lr is not None else ():
        group["lr"] = lr * group.get("scale", 1.0)
    optimiser.step()
    return float(norm)


class WorldModelTrainer(Continued):
    """Minimises Eq. 10 over random slices by Adam; `update` is one step, `state_dict` continues it bit-identically."""

    kept = ("model", "optimiser", "rng", "step")

    def __init__(
        self, model: WorldModel, data: SliceSource, config: WorldModelTraining | None = None, *, seed: int = 0, decay_from: int = 0
    ):
        """Make the optimiser; `decay_from` is the updates before the learning rate begins to fall, where `final_lr` says that it does."""
        self.model, self.data, self.config, self.decay_from = model, data, config or WorldModelTraining(), decay_from
        c = self.config
        encoder = list(model.encoder.parameters()) if model.encoder is not None else []
        embedding = list(model.task_embedding.parameters()) if model.task_embedding is not None else []
        rest = [p for name, p in model.named_parameters() if not name.startswith(("encoder.", "task_embedding."))]
        groups = [{"params": rest, "scale": 1.0}]
        if encoder:
            groups.append({"params": encoder, "scale": c.encoder_lr_scale})
        if embedding and c.train_task_embedding:
            groups.append({"params": embedding, "scale": 1.0})
        self.optimiser = torch.optim.Adam(groups, lr=c.lr, fused=True)
        self.rng = np.random.default_rng(seed)
        self.step = 0

    def update(self) -> dict[str, float]:
        """Take one gradient step; returns scalars to log, and raises NonFiniteError, after which nothing of the model has changed."""
        c = self.config
        device = self.model.obs_mean.device
        # What computing the loss may change: a spectral norm's vectors, an embedding longer than its norm allows.
        embedding = [] if self.model.task_embedding is None else [self.model.task_embedding.weight]
        rng_state, touched = self.rng.bit_generator.state, {x: x.detach().clone() for x in (*self.model.buffers(), *embedding)}
        done = max(0, self.step - self.decay_from) / max(1, c.updates - self.decay_from)
        lr = c.lr if c.final_lr is None else c.lr + (c.final_lr - c.lr) * min(1.0, done)
        try:
            obs, action, reward, task, *ends = (x.to(device) for x in self.data.slices(c.batch, c.horizon, self.rng))
            known = dict(zip(("valid", "terminated"), ends, strict=False))
            with torch.autocast(device.type, torch.bfloat16, enabled=c.precision == "bfloat16"):
                loss, parts = world_model_loss(self.model, obs, action, reward, task, c.loss, **known)
            check_finite(self.step + 1, **{f"world_model_{k}_loss": v for k, v in parts.items()})
            norm = gradient_step(self.optimiser, loss, lr=lr, max_norm=c.grad_norm, update=self.step + 1, name="world_model")
        except NonFiniteError as error:
            self.rng.bit_generator.state = rng_state
            with torch.no_grad():
                for x, before in touched.items():
                    x.copy_(before)
            raise NonFiniteError(f"{error}; the world model is back in the state before it") from error
        self.step += 1
        return {"loss": float(loss.detach()), "grad_norm": norm, **{f"{k}_loss": float(v) for k, v in parts.items()}}


Variant = Literal["paper", "released"]


@settings
class WorldModelTraining:
    """Settings of the world model's pre-training on offline data (Eq. 10, Table 1)."""

    updates: Count = 100_000
    horizon: Count = 16
    batch: Count = 1024
    lr: Positive = 3e-4
    final_lr: NonNegative | None = None
    """Linear decay to this value over `updates`; None keeps lr constant."""
    encoder_lr_scale: NonNegative = 1.0
    """TD-MPC2 pre-training: 0.3."""
    train_task_embedding: bool = True
    """Released fine-tuning: the optimiser is never given the embedding."""
    grad_norm: Positive = 20.0
    standardise_obs: bool = False
    """Standardise observations per task with the data's statistics (paper and released multi-task code: no)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products; parameters, normalisation, losses and the optimiser stay float32."""
    loss: WorldModelLossConfig = WorldModelLossConfig()

    def standardisation(self, mean: Tensor, std: Tensor, reward_mean: float, reward_std: float) -> tuple[Tensor, Tensor, float, float]:
        """Give those of the data's moments (of observations mean and std) that the model is to standardise with; else 0 and 1."""
        obs = (mean, std) if self.standardise_obs else (torch.zeros_like(mean), torch.ones_like(std))
        return (*obs, *((reward_mean, reward_std) if self.loss.normalise_reward else (0.0, 1.0)))

    @classmethod
    def variant(cls, name: Variant | Literal["released_fine_tuning"], **overrides: object) -> WorldModelTraining:
        """Give the paper's or the released code's choices; keyword arguments override single fields.

        "released": the pre-training behind the released multi-task runs, TD-MPC2's; `MultitaskScale.pretraining` adds the Q-functions
        that shape the latents too. "released_fine_tuning": what the released code itself trains models with, see
        `WorldModelLossConfig.released`; its multi-task runs did not. Raises ValueError for another name.
        """
        released: dict[str, dict[str, object]] = {
            "paper": {},
            "released": {"encoder_lr_scale": 0.3, "loss": WorldModelLossConfig().tdmpc2()},
            "released_fine_tuning": {
                "batch": 256, "final_lr": 1e-5, "train_task_embedding": False, "loss": WorldModelLossConfig().released(),
            },
        }  # fmt: skip
        return replace(cls(), **{**released[one_of(name, released, "variant")], **overrides})
