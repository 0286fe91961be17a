"""The world model: encoder E, latent dynamics F, reward R, learned task embeddings (Sec. 3.3, App. C), and its loss (Eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwmlib.settings import Count, Fraction, NonNegative, SettingError, Whole, settings

from .layers import Activation, SimNorm, linear_layers, mlp, training_mode
from .twohot import TwoHot

__all__ = ["WORLD_MODEL_SIZES", "WorldModel", "WorldModelConfig", "WorldModelLossConfig", "world_model_loss"]


@settings
class WorldModelConfig:
    """The architecture of a world model, by default the 48M size of Table 1."""

    latent_dim: Count = 768
    encoder_hidden: tuple[Count, ...] = (1792, 1792, 1792)
    dynamics_hidden: tuple[Count, ...] = (1792, 1792)
    reward_hidden: tuple[Count, ...] = (1792, 1792)
    task_dim: Whole = 96
    """Width of the learned task embedding (96 for MT80, 64 for MT30); 0 for a single task."""
    activation: Activation = "mish"
    layer_norm: bool = True
    latent_norm: Literal["simnorm", "none"] = "simnorm"
    """Output of E and F (Eq. 4). With activation and layer_norm this gives the ablation of Fig. 8a."""
    simnorm_group: Count = 8
    spectral_norm: bool = False
    two_hot: TwoHot | None = field(default_factory=TwoHot)
    """Reward head: two-hot classification (Eq. 10), or None for a scalar with squared error (released single-task code)."""
    apply_action_mask: bool = True
    """Zero the action entries that a task does not have; the released code builds the masks and never applies them."""
    termination: bool = False
    """A head that says whether a state ends the episode. The paper's tasks are treated as if none did; Hopper and Ant fall."""
    residual: bool = False
    """Dynamics predict z + F(z, a) and the state itself is the latent; a deviation from the paper, for small-scale comparisons."""

    def __post_init__(self) -> None:
        if self.latent_norm == "simnorm" and self.latent_dim % self.simnorm_group:
            raise SettingError("latent_dim", self.latent_dim, f"must be a multiple of simnorm_group={self.simnorm_group}")


WORLD_MODEL_SIZES: dict[str, WorldModelConfig] = {
    name: WorldModelConfig(latent, (width,) * layers, (units, units), (units, units))
    for name, width, layers, units, latent in (
        ("1M", 256, 1, 384, 128),
        ("5M", 256, 1, 512, 512),
        ("19M", 1024, 2, 1024, 768),
        ("48M", 1792, 3, 1792, 768),
        ("317M", 4096, 4, 4096, 1376),
    )
}
"""Published sizes. The name counts the Q-ensemble and policy prior of TD-MPC2 too; PWM uses 0.6M, 1.6M, 6.8M and 19M of the first four."""


class WorldModel(nn.Module):
    """Encoder E(s, e), dynamics F(z, a, e) and reward R(z, a, e) of any number of tasks with padded observations and actions.

    obs_dim, action_dim: padded sizes. action_dims: true action size of each task, length [tasks]; default action_dim for all.
    Observations are standardised with `obs_mean`, `obs_std` (buffers, shape [tasks, obs_dim]; 0 and 1 unless set).
    It is in evaluation mode except while a loss of it is computed, so that its answers and those of its frozen views are the same.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        *,
        tasks: int = 1,
        action_dims: Sequence[int] | None = None,
        config: WorldModelConfig | None = None,
    ):
        super().__init__()
        self.config = config = config or WorldModelConfig()
        action_dims = list(action_dims) if action_dims is not None else [action_dim] * tasks
        if len(action_dims) != tasks or not all(0 < m <= action_dim for m in action_dims):
            raise ValueError(f"WorldModel: action_dims must be {tasks} sizes in 1..{action_dim}, got {action_dims}")
        self.obs_dim, self.action_dim, self.tasks = obs_dim, action_dim, tasks
        self.latent_dim = obs_dim if config.residual else config.latent_dim
        common = {
            "activation": config.activation,
            "norm": "before_activation" if config.layer_norm else "none",
            "spectral_norm": config.spectral_norm,
        }
        e = config.task_dim
        self.task_embedding = nn.Embedding(tasks, e, max_norm=1.0) if e else None
        step_inputs = self.latent_dim + e + action_dim
        if config.residual:
            self.encoder = None
            self.dynamics = mlp(step_inputs, config.dynamics_hidden, obs_dim, **common)
        else:
            self.encoder = mlp(obs_dim + e, config.encoder_hidden, self.latent_dim, output=self._latent_norm(), **common)
            self.dynamics = mlp(step_inputs, config.dynamics_hidden, self.latent_dim, output=self._latent_norm(), **common)
        self.reward_head = mlp(step_inputs, config.reward_hidden, config.two_hot.bins if config.two_hot else 1, **common)
        self.termination_head = mlp(self.latent_dim + e, config.reward_hidden, 1, **common) if config.termination else None
        self.action_mask = nn.Buffer((torch.arange(action_dim) < torch.tensor(action_dims)[:, None]).float())
        self.obs_mean = nn.Buffer(torch.zeros(tasks, obs_dim))
        self.obs_std = nn.Buffer(torch.ones(tasks, obs_dim))
        self.reward_mean = nn.Buffer(torch.zeros(()))
        self.reward_std = nn.Buffer(torch.ones(()))
        self._initialise()
        self.eval()

    def _latent_norm(self) -> nn.Module:
        return SimNorm(self.config.simnorm_group) if self.config.latent_norm == "simnorm" else nn.Identity()

    def _initialise(self) -> None:
        """Truncated normal 0.02, zero bias, last reward layer zero (released code; the paper is silent)."""
        zero = [self.reward_head, self.termination_head, self.dynamics if self.config.residual else None]
        last = [head[-1] for head in zero if head is not None]
        for layer in [] if self.config.spectral_norm else linear_layers(self):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
            if layer in last:
                nn.init.zeros_(layer.weight)
        if self.task_embedding is not None:
            nn.init.uniform_(self.task_embedding.weight, -0.02, 0.02)

    def set_statistics(self, obs_mean: Tensor, obs_std: Tensor, reward_mean: float = 0.0, reward_std: float = 1.0) -> None:
        """Set the standardisation of inputs, obs_mean and obs_std of shape [tasks, obs_dim], and of rewards.

        That of rewards is for a model that is trained with `WorldModelLossConfig.normalise_reward`; its predictions undo it.
        """
        if obs_mean.shape != self.obs_mean.shape or obs_std.shape != self.obs_std.shape:
            raise ValueError(
                f"set_statistics: expected {tuple(self.obs_mean.shape)}, got {tuple(obs_mean.shape)} and {tuple(obs_std.shape)}"
            )
        self.obs_mean.copy_(obs_mean)
        self.obs_std.copy_(obs_std.clamp(min=1e-3))
        self.reward_mean.fill_(reward_mean)
        self.reward_std.fill_(reward_std)

    def _embed(self, task: Tensor, like: Tensor) -> list[Tensor]:
        if self.task_embedding is None:
            return []
        e = self.task_embedding(task)
        return [e.expand(*like.shape[:-1], e.shape[-1])]

    def _step_inputs(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        if self.config.apply_action_mask:
            action = action * self.action_mask[task]
        return torch.cat([z, *self._embed(task, z), action], -1)

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """Encode obs [..., obs_dim] as z = E(s, e), [..., latent_dim]; task: long, [] or [batch] matching the last leading dimension."""
        if obs.shape[-1] != self.obs_dim:
            raise ValueError(f"encode: expected observations of width {self.obs_dim}, got shape {tuple(obs.shape)}")
        obs = (obs - self.obs_mean[task]) / self.obs_std[task]
        return obs if self.encoder is None else self.encoder(torch.cat([obs, *self._embed(task, obs)], -1))

    def next(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Return z' = F(z, a, e), [..., latent_dim], of z [..., latent_dim] and action [..., action_dim]."""
        change = self.dynamics(self._step_inputs(z, action, task))
        return z + change if self.config.residual else change

    def unroll(self, obs: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Run on its own from z_0 = E(s_0): latents [H + 1, batch, latent_dim] of obs [batch, obs_dim], action [H, batch, action_dim]."""
        zs = [self.encode(obs, task).to(obs.dtype)]  # under autocast the layers answer in bfloat16
        for a in action:
            zs.append(self.next(zs[-1], a, task).to(obs.dtype))
        return torch.stack(zs)

    def reward_logits(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Return R(z, a, e), shape [..., bins], or [..., 1] with a scalar head."""
        return self.reward_head(self._step_inputs(z, action, task))

    def termination_logit(self, z: Tensor, task: Tensor) -> Tensor:
        """Return the log-odds, [...], that the episode ends in z [..., latent_dim]; raises ValueError without a termination head."""
        if self.termination_head is None:
            raise ValueError(f"termination_logit: {self} has no termination head")
        return self.termination_head(torch.cat([z, *self._embed(task, z)], -1)).squeeze(-1)

    def reward(self, z: Tensor, action: Tensor, task: Tensor, *, symexp: bool = False) -> Tensor:
        """Predict the reward, shape [...]: in symlog space by default as in the paper, in reward units with symexp=True."""
        return self.decode_reward(self.reward_logits(z, action, task), symexp=symexp)

    def decode_reward(self, logits: Tensor, *, symexp: bool) -> Tensor:
        """Return the reward, [...], of the head's output [..., bins] or [..., 1]."""
        value = self.config.two_hot.decode(logits, inverse_symlog=symexp) if self.config.two_hot else logits.squeeze(-1)
        return value * self.reward_std + self.reward_mean if symexp or not self.config.two_hot else value

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        return (
            f"WorldModel({count / 1e6:.2f}M parameters, tasks={self.tasks}, obs={self.obs_dim}, "
            f"action={self.action_dim}, latent={self.latent_dim})"
        )


@settings
class WorldModelLossConfig:
    """The weights and the form of Eq. 10; fields say what the released code does instead."""

    gamma: Fraction = 0.99
    """Weight gamma^t of step t (the public TD-MPC2 code calls it rho and uses 0.5)."""
    dynamics_coef: NonNegative = 1.0
    reward_coef: NonNegative = 1.0
    """Both 1 in the paper; TD-MPC2 pre-training has 20 and 0.1."""
    dynamics_reduction: Literal["sum", "mean"] = "sum"
    """Squared norm over latent dimensions (Eq. 10), or its mean (released)."""
    divide_by_horizon: Literal["none", "all", "released"] = "none"
    """all: the weighted sums are divided by H (TD-MPC2). released: by H, and that of the rewards by H once more."""
    reward_loss: Literal["cross_entropy", "broadcast_mse"] = "cross_entropy"
    """broadcast_mse: squared difference of every logit and the reward, what the released fine-tuning computes with a two-hot head."""
    termination_coef: NonNegative = 1.0
    """Of the cross-entropy of a model's termination head."""
    normalise_reward: bool = False
    """Learn (r - mean) / std clamped to +-5 (released single-task code)."""

    def released(self) -> WorldModelLossConfig:
        """Give what the released code minimises: on single tasks, and in the multi-task fine-tuning that the paper did not switch on.

        With a two-hot head its reward loss destroys what the head has learned; on a scalar head it is the squared error.
        """
        return replace(self, dynamics_reduction="mean", divide_by_horizon="released", reward_loss="broadcast_mse")

    def tdmpc2(self) -> WorldModelLossConfig:
        """Give the world model's terms of TD-MPC2's loss, which made the checkpoints that the released multi-task code loads.

        gamma is TD-MPC2's rho: 0.99 in the authors' command, 0.5 in TD-MPC2 itself.
        """
        terms = {"gamma": 0.99, "dynamics_coef": 20.0, "reward_coef": 0.1, "dynamics_reduction": "mean"}
        return replace(self, **terms, divide_by_horizon="all", reward_loss="cross_entropy")


def world_model_loss(
    model: WorldModel,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    task: Tensor,
    config: WorldModelLossConfig | None = None,
    *,
    valid: Tensor | None = None,
    terminated: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute Eq. 10: H steps on its own from z_0 = E(s_0), targets sg(E(s_{t+1})), two-hot cross-entropy of the rewards.

    obs: [H + 1, batch, obs_dim]; action: [H, batch, action_dim]; reward: [H, batch]; task: long [batch].
    valid: [H, batch], 0 for the steps after an episode's end, which count for nothing, NaN or not.
    terminated: bool [H, batch], whether a step ended the episode; what a termination head learns.
    Returns the scalar loss and its detached parts "dynamics", "reward" and, with such a head, "termination" (before coefficients).
    """
    config = config or WorldModelLossConfig()
    horizon = action.shape[0]
    if model.termination_head is not None and terminated is None:
        raise ValueError("world_model_loss: the model has a termination head, but the data does not say which steps end an episode")
    if obs.shape[0] != horizon + 1 or reward.shape != action.shape[:2]:
        raise ValueError(
            f"world_model_loss: obs must be [H+1, B, D], action [H, B, A], reward [H, B]; "
            f"got {tuple(obs.shape)}, {tuple(action.shape)}, {tuple(reward.shape)}"
        )
    # Steps after an episode's end are made harmless, since 0 times NaN would be NaN.
    if valid is not None:
        over = valid == 0
        reward, action = reward.masked_fill(over, 0.0), action.masked_fill(over.unsqueeze(-1), 0.0)
        obs = torch.cat([obs[:1], obs[1:].masked_fill(over.unsqueeze(-1), 0.0)])
    with training_mode(model, torch.is_grad_enabled()):
        with torch.no_grad():  # sg(E(s_{t+1}))
            targets = model.encode(obs[1:], task).to(obs.dtype)
        latents = model.unroll(obs[0], action, task)
        # Latents are pulled towards the targets: squared distances, summed over their entries, a mean over the batch.
        squared = (latents[1:] - targets).square()
        kept = (lambda x: x.mean(-1)) if valid is None else (lambda x: (x * valid).mean(-1))
        per_step = kept(squared.sum(-1) if config.dynamics_reduction == "sum" else squared.mean(-1))
        # Rewards of all steps at once: two-hot cross-entropy.
        logits = model.reward_logits(latents[:-1], action, task).to(obs.dtype)
        if config.normalise_reward:
            reward = ((reward - model.reward_mean) / model.reward_std).clamp(-5.0, 5.0)
        reward_error = kept(_reward_error(model, logits, reward, config.reward_loss))
        # Both are summed over the steps, step t with the weight gamma^t, and added up.
        weight = config.gamma ** torch.arange(horizon, device=obs.device, dtype=obs.dtype)
        dynamics, rewards = (weight * per_step).sum(), (weight * reward_error).sum()
        if config.divide_by_horizon != "none":
            dynamics, rewards = dynamics / horizon, rewards / horizon ** (2 if config.divide_by_horizon == "released" else 1)
        loss = config.dynamics_coef * dynamics + config.reward_coef * rewards
        parts = {"dynamics": dynamics.detach(), "reward": rewards.detach()}
        # Where episodes may end, a head learns from every state reached whether it ended one.
        if model.termination_head is not None and terminated is not None:
            logit = model.termination_logit(latents[1:], task).to(obs.dtype)
            ends = (weight * kept(F.binary_cross_entropy_with_logits(logit, terminated.to(obs.dtype), reduction="none"))).sum()
            loss, parts["termination"] = loss + config.termination_coef * ends, ends.detach()
    return loss, parts


def _reward_error(model: WorldModel, logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """Error of each reward, shape [H, batch]."""
    if kind == "broadcast_mse":
        return (logits - target.unsqueeze(-1)).square().mean(-1)
    if model.config.two_hot is None:
        return (logits.squeeze(-1) - target).square()
    return model.config.two_hot.cross_entropy(logits, target)
