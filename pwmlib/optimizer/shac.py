"""SHAC, short-horizon actor-critic (Xu et al. 2022): the update of Algorithm 1 in a differentiable simulator.

What differs from PWM is the world, and choices that have names: a target critic that follows slowly, critic fits on the shuffled data,
observations standardised as they come. Episodes go on from update to update, the graph is cut in between. Values are bootstrapped where
an episode is truncated, and are zero where it terminates.
"""

from collections.abc import Callable
from dataclasses import field
from typing import Literal

from pwmlib.settings import Count, Fraction, Positive, settings
from pwmlib.sim.env import DifferentiableEnv

from .imagination import Rollout
from .pwm import LATER, PWM, PWMConfig

__all__ = ["SHAC", "SHACConfig"]


@settings
class SHACConfig(PWMConfig):
    """Settings of SHAC; `batch` and `start_states` mean nothing in a simulator, which has its own number of environments."""

    updates: Count = 2000
    horizon: Count = 32
    actor_lr: Positive = 2e-3
    critic_grad_norm: Positive = 1.0
    critics: Count = 1
    critic_iterations: Count = 4
    actor_loss_scale: Literal["none", "horizon"] = "horizon"
    critic_loss: Literal["sum", "mean"] = "mean"
    critic_sampling: Literal["uniform", "time_blocks", "shuffled"] = "shuffled"
    normalise_obs: bool = field(default=True, metadata=LATER)
    target_kept: Fraction = field(default=0.2, metadata=LATER)


class SHAC(PWM):
    """Algorithm 1 with a simulator's environments as the world."""

    def __init__(
        self, env: DifferentiableEnv, config: SHACConfig | None = None, *, seed: int = 0, spread: bool = True,
        record: Callable[[Rollout], None] | None = None,
    ):  # fmt: skip
        """Build the learner as `PWM` does; `spread` lets the first episodes begin at different ages, see `DifferentiableEnv.reset`."""
        super().__init__(env, None, config or SHACConfig(), seed=seed, device=env.simulator.device, record=record)
        env.reset(seed=seed, spread=spread)
