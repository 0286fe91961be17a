"""Hyper-parameters of Algorithm 1 (Table 1), every difference between the paper and the released code as a named option."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pwmlib.model.layers import Activation, NormOrder
from pwmlib.model.training import Variant
from pwmlib.settings import Beta, Count, Fraction, NonNegative, Positive, Real, SettingError, settings

from .actor_critic import MIN_LOG_STD

__all__ = ["PWMConfig"]


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
