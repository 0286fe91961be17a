"""The part of a multi-task world model that serves one task, and a policy's, without the padding of the others."""

from __future__ import annotations

from torch import Tensor

from pwmlib.model.world_model import WorldModel, WorldModelConfig

__all__ = ["divisible", "one_task", "one_task_policy"]


def divisible(config: WorldModelConfig) -> bool:
    """Say whether `one_task` can take a part of such a model.

    Not with spectral norms, which are those of the padded matrices, nor of a residual one, whose policies see padded states.
    """
    return not (config.spectral_norm or config.residual)


def one_task(model: WorldModel, index: int, obs_dim: int, action_dim: int) -> WorldModel:
    """Copy the part of a multi-task model that serves one task, as a model of its own; it computes the same without the padding.

    Args:
        model: the multi-task model.
        index: the task's number in it.
        obs_dim: the task's true number of observations.
        action_dim: the task's true number of actions.

    Returns:
        A model of one task.

    Raises:
        ValueError: the model is not `divisible`.
    """
    c, e, z = model.config, model.config.task_dim, model.latent_dim
    if not divisible(c):
        raise ValueError(
            f"one_task: spectral_norm={c.spectral_norm}, residual={c.residual}; such a model has no part that computes the same"
        )
    step = slice(0, z + e + action_dim)
    columns = {
        "encoder.0.weight": [*range(obs_dim), *range(model.obs_dim, model.obs_dim + e)],
        "dynamics.0.weight": step,
        "reward_head.0.weight": step,
    }
    part, whole = WorldModel(obs_dim, action_dim, config=c), model.state_dict()
    state: dict[str, Tensor] = {}
    for name, own in part.state_dict().items():
        if name in ("action_mask", "obs_mean", "obs_std", "task_embedding.weight"):
            state[name] = whole[name][index : index + 1, : own.shape[1]]
        else:
            state[name] = whole[name][:, columns[name]] if name in columns else whole[name]
    part.load_state_dict(state)
    return part.to(model.obs_mean.device)


def one_task_policy(actor: dict[str, Tensor], action_dim: int) -> dict[str, Tensor]:
    """Return a policy's state_dict with the first `action_dim` of its padded actions."""
    last = max(int(name.split(".")[1]) for name in actor if name.startswith("mean."))
    heads = ("log_std", *(name for name in actor if name.startswith(f"mean.{last}.")))
    return {name: value[:action_dim] if name in heads else value for name, value in actor.items()}
