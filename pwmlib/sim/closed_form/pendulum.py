"""Pendulum swing-up with dm_control's constants, in closed form; the torque is too weak to lift the pole in one swing."""

import math

import torch
from torch import Tensor

from pwmlib.errors import one_of

__all__ = ["PendulumSwingup"]

_STARTS = ("broad", "hanging", "suite")
_UPRIGHT = math.cos(math.radians(8.0))
"""Cosine of the largest angle that still counts as upright."""


class PendulumSwingup:
    """Differentiable pendulum swing-up; one step is 0.04 s (two control steps of dm_control's task), in 4 substeps.

    state: [..., 3] = (cos theta, sin theta, theta' [rad/s]); theta = 0 is upright. action: [..., 1] in [-1, 1], torque = 1 N m x action.
    Mass 1 kg at 0.5 m, viscous damping 0.1 N m s, gravity 9.81: holding the pole level would need 4.9 N m, so it has to be pumped.

    The true reward is 1 within 8 degrees of upright and 0 elsewhere, twice per step; it has no gradient. The reward that the
    optimiser sees is `reward_shape`: "true"; "sigmoid", the same step smoothed over `smoothing` in cos theta; or "cosine",
    (1 + cos theta) / 2, dense everywhere.
    """

    state_dim, action_dim = 3, 1
    episode_steps = 500

    def __init__(self, *, start: str = "broad", reward_shape: str = "sigmoid", smoothing: float = 0.05):
        self.reward_shape = one_of(reward_shape, ("true", "sigmoid", "cosine"), "PendulumSwingup: reward_shape")
        self.start, self.smoothing = one_of(start, _STARTS, "PendulumSwingup: start"), smoothing
        self.mass, self.length, self.damping, self.gravity = 1.0, 0.5, 0.1, 9.81
        self.torque, self.dt, self.substeps = 1.0, 0.04, 4

    def reset(self, batch: int, generator: torch.Generator | None = None, *, start: str | None = None) -> Tensor:
        """Draw start states [batch, 3].

        "suite": any angle at rest (dm_control's reset); "hanging": near the bottom; "broad": any angle, speeds up to 8 rad/s.
        """
        kind = one_of(start or self.start, _STARTS, "PendulumSwingup: start")
        device = generator.device if generator is not None else torch.device("cpu")
        uniform = torch.rand(batch, 2, generator=generator, device=device) * 2 - 1
        theta = math.pi + 0.1 * uniform[:, 0] if kind == "hanging" else math.pi * uniform[:, 0]
        speed = 8.0 * uniform[:, 1] if kind == "broad" else torch.zeros_like(theta)
        return torch.stack([theta.cos(), theta.sin(), speed], -1)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Take one step from states [..., 3] with actions [..., 1]."""
        cos, sin, w = state.unbind(-1)
        torque = self.torque * action[..., 0]
        inertia, h = self.mass * self.length**2, self.dt / self.substeps
        for _ in range(self.substeps):
            w = w + h * (self.mass * self.gravity * self.length * sin - self.damping * w + torque) / inertia
            c, s = torch.cos(h * w), torch.sin(h * w)
            cos, sin = cos * c - sin * s, sin * c + cos * s
        return torch.stack([cos, sin, w], -1)

    def true_reward(self, next_state: Tensor) -> Tensor:
        """Give 2 within 8 degrees of upright and 0 elsewhere, shape [...]."""
        return 2.0 * (next_state[..., 0] >= _UPRIGHT).to(next_state.dtype)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Give the reward of `reward_shape` in the state reached; it is in [0, 2], shape [...]."""
        cos = next_state[..., 0]
        if self.reward_shape == "true":
            return self.true_reward(next_state)
        if self.reward_shape == "cosine":
            return 1.0 + cos
        return 2.0 * torch.sigmoid((cos - _UPRIGHT) / self.smoothing)

    def done(self, next_state: Tensor) -> None:
        """Give None, since no episode terminates."""
        return None
