"""Hyper-parameters of Algorithm 1 (Table 1), every difference between the paper and the released code as a named option."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from .nets import Activation, NormOrder
from .policy import MIN_LOG_STD
from .settings import Beta, Count, Fraction, NonNegative, Positive, Real, SettingError, settings
from .world_model import WorldModelLossConfig

__all__ = ["PWMConfig", "Variant", "WorldModelTraining"]

Variant = Literal["paper", "released"]


@settings
class PWMConfig:
    """Policy extraction. The defaults are the paper's; `PWMConfig.variant("released")` sets every switch to the public code's choice.

    Where the paper is silent (Adam's betas, learning-rate decay, initial standard deviation) the default is the released value.
    """

    updates: Count = 10_000
    """Policy updates N; learning rates decay over them."""
    horizon: Count = 16
    batch: Count = 64
    """Imagined trajectories per update (Table 1). Released multi-task configuration: 512."""
    gamma: Fraction = 0.99
    lam: Fraction = 0.95
    actor_lr: Positive = 5e-4
    critic_lr: Positive = 5e-4
    final_lr: NonNegative = 1e-5
    lr_schedule: Literal["linear", "constant"] = "linear"
    betas: tuple[Beta, Beta] = (0.7, 0.95)
    actor_grad_norm: Positive = 1.0
    critic_grad_norm: Positive = 100.0
    actor_hidden: tuple[Count, ...] = (400, 200, 100)
    critic_hidden: tuple[Count, ...] = (400, 200)
    critics: Count = 3
    activation: Activation = "mish"
    norm_order: NormOrder = "before_activation"
    """"LayerNorm and Mish" (paper). Released actor and critics: Linear-Mish-LayerNorm, "after_activation"."""
    log_std_init: Real = -1.0
    min_log_std: Real = MIN_LOG_STD
    actor_objective: Literal["n_step", "td_lambda"] = "n_step"
    """Eq. 6, or the lambda-return of Fig. 19."""
    terminal_discount: Literal["gamma^H", "gamma^(H+1)"] = "gamma^H"
    """Weight of V(z_H) in Eq. 6. Released: gamma^(H+1), because gamma is advanced once too often."""
    detach_policy_input: bool = False
    """Full first-order gradient (Eq. 3). Released: the actor sees sg(z), which drops da/dz."""
    actor_loss_scale: Literal["none", "horizon"] = "none"
    """Released: the mean return is divided by H."""
    return_scaling: Literal["none", "running_std"] = "none"
    """Released: returns divided by a cumulative running standard deviation (ret_rms), instead of by H."""
    reward_symexp: bool = False
    """Optimise rewards in their own units instead of symlog space. The paper omits SymExp "since it is not differentiable"; it is."""
    critic_target: Literal["td_lambda", "td0"] = "td_lambda"
    """Eq. 7-8. Released multi-task code: one-step targets, since its done mask is all ones."""
    critic_value: Literal["mean", "min"] = "mean"
    """How 3 critics give one value: "to reduce variance" (paper), or the minimum (released)."""
    critic_loss: Literal["sum", "mean"] = "sum"
    """Eq. 9 sums over time and critics; released: mean over both."""
    critic_iterations: Count = 8
    critic_minibatches: Count = 4
    critic_sampling: Literal["uniform", "time_blocks"] = "uniform"
    """8 gradient steps, each on a uniform sample of a quarter of the data (paper), or 8 passes over 4 unshuffled blocks of time
    steps, 32 gradient steps (released)."""
    continued: Fraction = 0.0
    """Share of the imagined trajectories that go on from where those of the last update ended, instead of from replay states (paper)."""
    start_states: Literal["all", "slice_start"] = "all"
    """Which replay states start imagined rollouts: all (s_1 ~ B), or none of an episode's last H (released: first of a slice)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products of the frozen model and the critics; parameters, sums and the actor stay float32."""

    def __post_init__(self) -> None:
        if self.critic_sampling == "time_blocks" and self.horizon % self.critic_minibatches:
            said = f"critic_sampling='time_blocks' needs a divisor of horizon={self.horizon}"
            raise SettingError("critic_minibatches", self.critic_minibatches, said)

    @property
    def critic_steps(self) -> int:
        """Gradient steps of the critics per update."""
        return self.critic_iterations * (self.critic_minibatches if self.critic_sampling == "time_blocks" else 1)

    @property
    def start_margin(self) -> int:
        """Last steps of an episode whose states start no imagined rollout."""
        return self.horizon if self.start_states == "slice_start" else 0

    @classmethod
    def variant(cls, name: Variant, **overrides: object) -> PWMConfig:
        """The paper's or the released code's choices; keyword arguments override single fields."""
        if name == "paper":
            return replace(cls(), **overrides)
        if name != "released":
            raise ValueError(f"variant must be 'paper' or 'released', got {name!r}")
        released: dict[str, object] = {
            "batch": 512,
            "norm_order": "after_activation",
            "terminal_discount": "gamma^(H+1)",
            "detach_policy_input": True,
            "actor_loss_scale": "horizon",
            "return_scaling": "running_std",
            "critic_target": "td0",
            "critic_value": "min",
            "critic_loss": "mean",
            "critic_sampling": "time_blocks",
            "start_states": "slice_start",
        }
        return replace(cls(), **{**released, **overrides})


@settings
class WorldModelTraining:
    """Pre-training of the world model on offline data (Eq. 10, Table 1)."""

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
        """Of the data's moments (of observations mean and std) those that the model is to standardise with; else 0 and 1."""
        obs = (mean, std) if self.standardise_obs else (torch.zeros_like(mean), torch.ones_like(std))
        return (*obs, *((reward_mean, reward_std) if self.loss.normalise_reward else (0.0, 1.0)))

    @classmethod
    def variant(cls, name: Variant | Literal["released_fine_tuning"], **overrides: object) -> WorldModelTraining:
        """The paper's or the released code's choices; keyword arguments override single fields.

        "released": the pre-training behind the released multi-task runs, TD-MPC2's; `MultitaskScale.pretraining` adds the Q-functions
        that shape the latents too. "released_fine_tuning": what the released code itself trains models with, see
        `WorldModelLossConfig.released`; its multi-task runs did not. Raises ValueError for another name.
        """
        released: dict[str, dict[str, object]] = {
            "paper": {},
            "released": {"encoder_lr_scale": 0.3, "loss": WorldModelLossConfig().tdmpc2()},
            "released_fine_tuning": {
                "batch": 256,
                "final_lr": 1e-5,
                "train_task_embedding": False,
                "loss": WorldModelLossConfig().released(),
            },
        }
        if name not in released:
            raise ValueError(f"variant must be 'paper', 'released' or 'released_fine_tuning', got {name!r}")
        return replace(cls(), **{**released[name], **overrides})
