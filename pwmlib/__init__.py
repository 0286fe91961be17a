"""pwmlib: the equations of "PWM: Policy learning with multi-task world models", each in one place."""

__version__ = "0.1.0"
