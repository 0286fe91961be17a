"""Sizes of PPO and SAC runs; importing them needs no stable-baselines3."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SB3Config"]


@dataclass(frozen=True)
class SB3Config:
    """Sizes of one run; one update is `steps` steps of every environment with the training that follows from them."""

    updates: int = 2000
    steps: int = 32
    hidden: tuple[int, ...] = (256, 128)
    lr: float = 3e-4
    final_lr: float | None = None
    """Towards which the learning rate falls in a straight line over the updates; None: it stays."""
    gamma: float = 0.99
    # PPO
    lam: float = 0.95
    minibatch: int = 2048
    epochs: int = 5
    entropy: float = 0.0
    # SAC
    gradient_steps: int = 8
    """After each step of all environments."""
    batch: int = 256
    buffer: int = 1_000_000
