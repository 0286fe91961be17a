"""Sizes of PPO and SAC runs; importing them needs no stable-baselines3."""

from pwmlib.settings import Count, Fraction, NonNegative, Positive, settings

__all__ = ["SB3Config"]


@settings
class SB3Config:
    """Settings of one run; an update is `steps` steps of every environment with the training that follows from them."""

    updates: Count = 2000
    steps: Count = 32
    hidden: tuple[Count, ...] = (256, 128)
    lr: Positive = 3e-4
    final_lr: NonNegative | None = None
    """Towards which the learning rate falls in a straight line over the updates; None: it stays."""
    gamma: Fraction = 0.99
    # PPO
    lam: Fraction = 0.95
    minibatch: Count = 2048
    epochs: Count = 5
    entropy: NonNegative = 0.0
    # SAC
    gradient_steps: Count = 8
    """After each step of all environments."""
    batch: Count = 256
    buffer: Count = 1_000_000
