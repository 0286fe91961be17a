"""The ball and the wall: a discontinuous objective, smooth surrogates of it, and gradient descent on each (Sec. 3.1, App. A)."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pwmlib.settings import NUMBER, settings

__all__ = ["BallWall"]

THETA = (-math.pi, math.pi)
"""Domain of the throwing angle, rad."""


Size = Annotated[float, Field(gt=0, le=1000), NUMBER]


@settings
class BallWall:
    """A ball thrown at angle theta from the origin towards a wall; J(theta) = -x(T) is minimised (Eq. 11, corrected).

    x(t) = v cos(theta) t + a t^2 / 2, y(t) = v sin(theta) t - g t^2 / 2. The ball reaches the wall's place w at
    t_c = (-v cos(theta) + sqrt(v^2 cos^2(theta) + 2 a w)) / a. When t_c <= T and y(t_c) < h it is stopped there, x(T) = w.
    """

    speed: Size = 10.0
    """v, m/s."""
    acceleration: Size = 1.0
    """a, horizontal, m/s^2. Eq. 11 prints g here; the released script uses 1."""
    gravity: Size = 9.81
    """g, m/s^2."""
    wall: Size = 5.0
    """w, the wall's place (not its width), m."""
    height: Annotated[float, Field(ge=-1000, le=1000), NUMBER] = 0.0
    """h, the wall's upper edge above the throwing point, m."""
    time: Size = 2.0
    """T, s."""
    contact_time: Literal["corrected", "released"] = "corrected"
    """"released": sqrt(v^2 cos^2 + a w) without the factor 2, as Eq. 11 and the script have it; moves the optimum to 0.123 rad."""

    def contact(self, theta: Tensor) -> Tensor:
        """Compute t_c, when the ball is at the wall's place [s]; shape of theta."""
        vx = self.speed * torch.cos(theta)
        factor = 2.0 if self.contact_time == "corrected" else 1.0
        return (-vx + (vx.square() + factor * self.acceleration * self.wall).sqrt()) / self.acceleration

    def clears(self, theta: Tensor) -> Tensor:
        """Tell where the ball passes over the wall or never reaches it within T; bool, shape of theta."""
        contact = self.contact(theta)
        y = self.speed * torch.sin(theta) * contact - 0.5 * self.gravity * contact.square()
        return (y >= self.height) | (contact > self.time)

    def flight(self, theta: Tensor, points: int = 100) -> tuple[Tensor, Tensor]:
        """Follow one throw until the wall stops it, or until T: its places (x, y) [m], each [points]; theta: a scalar."""
        t = torch.linspace(0, 1, points, dtype=theta.dtype) * (self.time if self.clears(theta) else self.contact(theta))
        x = self.speed * torch.cos(theta) * t + 0.5 * self.acceleration * t.square()
        return x, self.speed * torch.sin(theta) * t - 0.5 * self.gravity * t.square()

    def objective(self, theta: Tensor) -> Tensor:
        """Compute J(theta) [m], any shape; it is differentiable almost everywhere, with jumps."""
        free = self.speed * torch.cos(theta) * self.time + 0.5 * self.acceleration * self.time**2
        return -torch.where(self.clears(theta), free, torch.full_like(free, self.wall))

    def warnings(self) -> list[str]:
        """Say why this world cannot answer what the study asks; nothing where some throws cross the wall and some do not."""
        theta = torch.linspace(*THETA, 20_001, dtype=torch.float64)
        reaching = self.contact(theta) <= self.time
        crossing = reaching & self.clears(theta)
        if not reaching.any():
            return [f"Warning: no throw reaches the wall at {self.wall:g} m within {self.time:g} s, so that J has no cliff to cross."]
        if not crossing.any():
            return [
                f"Warning: no throw crosses this wall, whose upper edge is at {self.height:g} m: the plateau before it is the optimum, and "
                "a descent that stays there counts as having found it."
            ]
        if crossing[reaching].all():
            return ["Warning: every throw that reaches this wall crosses it, so that J has no cliff to cross."]
        return []

    def optimum(self, points: int = 200_001) -> tuple[float, float]:
        """Find (theta*, J*) on a fine grid, in float64."""
        theta = torch.linspace(*THETA, points, dtype=torch.float64)
        values = self.objective(theta)
        best = int(values.argmin())
        return float(theta[best]), float(values[best])
