"""pwmlib: the equations of "PWM: Policy learning with multi-task world models", each in one place."""

from . import _moved

__version__ = "0.2.0"

_moved.install()
