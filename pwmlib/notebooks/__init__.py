"""The parameters of each notebook: names, types, allowed values, defaults per scale."""

from .ablations import AblationParameters
from .ball_wall import BallWallParameters
from .double_pendulum import DoublePendulumParameters
from .figures import FiguresParameters
from .lesson import LessonParameters
from .multitask import MultitaskParameters
from .single_task import SingleTaskParameters

__all__ = [
    "AblationParameters",
    "BallWallParameters",
    "DoublePendulumParameters",
    "FiguresParameters",
    "LessonParameters",
    "MultitaskParameters",
    "SingleTaskParameters",
]
