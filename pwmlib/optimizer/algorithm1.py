"""Algorithm 1 in its two loops: a world model from offline data, then a policy from the frozen model."""

from collections.abc import Callable

import torch

from pwmlib.model.dynamics import Dynamics
from pwmlib.model.training import SliceSource, WorldModelTrainer, WorldModelTraining
from pwmlib.model.world_model import WorldModel

from .pwm import PWM, PWMConfig, StartStates

__all__ = ["extract_policy", "pretrain_world_model"]


def pretrain_world_model(
    model: WorldModel,
    data: SliceSource,
    config: WorldModelTraining | None = None,
    *,
    seed: int = 0,
    callback: Callable[[WorldModelTrainer, dict[str, float]], None] | None = None,
) -> WorldModelTrainer:
    """Train a world model on offline data in `config.updates` updates of Eq. 10 (Algorithm 1, first stage).

    Args:
        model: changed in place.
        data: gives the slices.
        config: the numbers of the training; by default Table 1's.
        seed: of the slices that are drawn.
        callback: called with the trainer and its scalars after each update.

    Returns:
        The trainer; `.model` is the world model.

    Raises:
        NonFiniteError: a loss or gradient was NaN or infinite.
    """
    trainer = WorldModelTrainer(model, data, config, seed=seed)
    while trainer.step < trainer.config.updates:
        metrics = trainer.update()
        if callback:
            callback(trainer, metrics)
    return trainer


def extract_policy(
    dynamics: Dynamics,
    starts: StartStates,
    config: PWMConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    callback: Callable[[PWM, dict[str, float]], None] | None = None,
) -> PWM:
    """Extract a policy from frozen dynamics in `config.updates` updates (Algorithm 1, second stage).

    Args:
        dynamics: the world; anything with the `Dynamics` protocol.
        starts: draws start states of imagined rollouts.
        config: the numbers of the learner; by default Table 1's.
        seed: of initial weights and of all that is drawn.
        device: where actor and critics are.
        callback: called with the learner and its scalars after each update.

    Returns:
        The learner; `.actor` is the policy.

    Raises:
        NonFiniteError: a loss or gradient was NaN or infinite.
    """
    learner = PWM(dynamics, starts, config, seed=seed, device=device)
    while learner.step < learner.config.updates:
        metrics = learner.update()
        if callback:
            callback(learner, metrics)
    return learner
