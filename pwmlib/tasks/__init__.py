"""MT30 and MT80: a registry that imports no simulator, and one small interface to the real ones."""

from .environment import Environment, make
from .registry import MT30, MT80, STRATIFIED, Task, select_tasks, task

__all__ = ["MT30", "MT80", "STRATIFIED", "Environment", "Task", "make", "select_tasks", "task"]
