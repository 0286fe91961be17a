"""Parameters of notebook 00."""

import math
from dataclasses import replace
from typing import Literal

from pydantic import Field

from companion.running.notebook import Common
from companion.running.parameters import override
from pwmlib.sim.closed_form.ball_wall import BallWall

from .study import BALL_WALL_SCALES, BallWallScale


class BallWallParameters(Common):
    """notebooks/00_ball_wall.ipynb."""

    notebook = "00_ball_wall"
    seeds: int | None = Field(
        None, ge=2, le=1000, description="the number of seeds, at least 2 for an interval over them; None means the scale's number"
    )
    start: float = Field(-math.pi, ge=-math.pi, le=math.pi, description="where gradient descent starts, rad in [-pi, pi]")
    lr: float = Field(0.01, gt=0, le=1, description="the step size of gradient descent, in (0, 1]")
    wall: float = Field(5.0, description="the wall's place, m, in (0, 1000]")
    height: float = Field(0.0, description="the wall's upper edge, m, in [-1000, 1000]")
    speed: float = Field(10.0, description="the throwing speed, m/s, in (0, 1000]")
    acceleration: float = Field(1.0, description="the horizontal acceleration, m/s^2, in (0, 1000]")
    gravity: float = Field(9.81, description="gravity, m/s^2, in (0, 1000]")
    time: float = Field(2.0, description="when the ball's place counts, s, in (0, 1000]")
    contact_time: Literal["corrected", "released"] = Field("corrected", description="Eq. 11 corrected, or as released")

    def world(self) -> BallWall:
        """Make the world of these parameters."""
        names = ("speed", "acceleration", "gravity", "wall", "height", "time", "contact_time")
        return BallWall(**{name: getattr(self, name) for name in names})

    def scaled(self) -> BallWallScale:
        """The scale's numbers with this notebook's changes."""
        scale = override(BALL_WALL_SCALES[self.scale], self.overrides)
        self.world()  # so that its settings are checked too
        return replace(scale, seeds=self.seeds) if self.seeds else scale
