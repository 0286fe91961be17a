"""Cartpole swing-up with the masses, lengths and reward of dm_control's task, in closed form."""

import math

import torch
from torch import Tensor

from pwmlib.errors import one_of

__all__ = ["CartpoleSwingup"]

_STARTS = ("broad", "hanging")


def _gaussian(x: Tensor, margin: float) -> Tensor:
    """Smooth reward of the control suite (Tassa et al. 2018), any shape: 1 at zero, 0.1 where |x| is the margin."""
    return torch.exp(math.log(0.1) * (x / margin).square())


class CartpoleSwingup:
    """Differentiable cartpole swing-up; one step is 0.02 s (two control steps of dm_control's task), Euler in 4 substeps.

    state: [..., 5] = (x [m], cos theta, sin theta, x' [m/s], theta' [rad/s]); theta = 0 is upright. The same five numbers, in the
    same order, as dm_control's observation. action: [..., 1] in [-1, 1], force = 10 N x action.
    The rail ends at |x| = 1.8 m are a stiff, damped spring, so that gradients exist there. reward: in [0, 2] per step.
    """

    state_dim, action_dim = 5, 1
    episode_steps = 500

    def __init__(self, *, start: str = "broad"):
        self.start = one_of(start, _STARTS, "CartpoleSwingup: start")
        self.cart_mass, self.pole_mass, self.half_length, self.gravity = 1.0, 0.1, 0.5, 9.81
        self.force, self.rail, self.dt, self.substeps = 10.0, 1.8, 0.02, 4

    def reset(self, batch: int, generator: torch.Generator | None = None, *, start: str | None = None) -> Tensor:
        """Draw start states [batch, 5]. "hanging": dm_control's reset; "broad": any place, any angle, moderate speeds."""
        device = generator.device if generator is not None else torch.device("cpu")
        normal = torch.randn(batch, 3, generator=generator, device=device)
        uniform = torch.rand(batch, 2, generator=generator, device=device) * 2 - 1
        if one_of(start or self.start, _STARTS, "CartpoleSwingup: start") == "hanging":
            x, theta = 0.01 * normal[:, 0], math.pi + 0.01 * normal[:, 1]
            x_dot, theta_dot = torch.zeros_like(x), 0.01 * normal[:, 2]
        else:
            x, theta = 1.7 * uniform[:, 0], math.pi * uniform[:, 1]
            x_dot, theta_dot = normal[:, 0], 3.0 * normal[:, 1]
        return torch.stack([x, theta.cos(), theta.sin(), x_dot, theta_dot], -1)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Take one step from states [..., 5] with actions [..., 1]."""
        x, cos, sin, v, w = state.unbind(-1)
        force = self.force * action[..., 0]
        m, total, half, h = self.pole_mass, self.cart_mass + self.pole_mass, self.half_length, self.dt / self.substeps
        for _ in range(self.substeps):
            over = (x.abs() - self.rail).clamp(min=0.0)
            wall = -torch.sign(x) * (2000.0 * over + 40.0 * (over > 0) * torch.sign(x) * v)
            # Pole as a thin rod: (4/3) m l^2 about the pivot; theta from the upright.
            push = (force + wall + m * half * w.square() * sin) / total
            w_dot = (self.gravity * sin - cos * push) / (half * (4.0 / 3.0 - m * cos.square() / total))
            v_dot = push - m * half * w_dot * cos / total
            v, w = v + h * v_dot, w + h * w_dot
            x = x + h * v
            angle = h * w
            c, s = torch.cos(angle), torch.sin(angle)
            cos, sin = cos * c - sin * s, sin * c + cos * s
        return torch.stack([x, cos, sin, v, w], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Give dm_control's swing-up reward of the state reached twice (two control steps); it is in [0, 2], shape [...]."""
        x, cos, _, _, w = next_state.unbind(-1)
        upright = (cos + 1) / 2
        centred = (1 + _gaussian(x, margin=2.0)) / 2
        small_control = (4 + (1 - action[..., 0].square()).clamp(min=0.0)) / 5
        small_velocity = (1 + _gaussian(w, margin=5.0)) / 2
        return 2.0 * upright * small_control * small_velocity * centred

    def done(self, next_state: Tensor) -> None:
        """Give None, since no episode terminates."""
        return None
