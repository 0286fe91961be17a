"""Published checkpoints as this library's modules: TD-MPC2's (old and new layout, 1M to 317M) and PWM's agents.

Sizes are inferred from the tensors' shapes. The Q-ensemble and policy prior of TD-MPC2 are not part of PWM and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .foreign import ForeignFileError, file_sha256, read_torch_file
from .policy import Actor, Critics
from .tasks import MT30, MT80
from .twohot import TwoHot
from .world_model import WorldModel, WorldModelConfig

__all__ = ["ReleasedAgent", "load_released", "load_released_world_model"]

_IGNORED = ("_pi.", "_Qs.", "_target_Qs", "_detach_Qs", "_action_masks", "log_std_min", "log_std_dif")


@dataclass(frozen=True)
class ReleasedAgent:
    """What a published file holds."""

    world_model: WorldModel
    actor: Actor | None
    critics: Critics | None
    """Both only in PWM's agent files."""
    sha256: str
    """Of the file."""


def load_released(path: str | Path) -> ReleasedAgent:
    """Read a TD-MPC2 checkpoint {"model": ...} or a PWM agent {"actor", "critic", "world_model", ...}.

    Raises ForeignFileError with a report of names and shapes where the file's tensors do not make a model.
    """
    content = read_torch_file(path)
    if not isinstance(content, dict) or not {"model", "world_model"} & set(content):
        keys = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ForeignFileError(f"{path}: expected a TD-MPC2 checkpoint (key 'model') or a PWM agent (key 'world_model'), found {keys}")
    model = _world_model(path, content.get("world_model", content.get("model")))
    actor = _actor(path, content["actor"]) if "actor" in content else None
    critics = _critics(path, content["critic"]) if "critic" in content else None
    return ReleasedAgent(model, actor, critics, file_sha256(path))


def load_released_world_model(path: str | Path) -> WorldModel:
    """Only the world model of `load_released`."""
    return load_released(path).world_model


def _world_model(path: str | Path, tensors: Mapping[str, Any]) -> WorldModel:
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.startswith(_IGNORED) or not isinstance(value, Tensor):
            continue
        name = key.replace("_encoder.state.", "_encoder.").removeprefix("_")
        for theirs, ours in (("task_emb.", "task_embedding."), ("reward.", "reward_head.")):
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        renamed[name] = value.float()
    widths = {part: _widths(renamed, part) for part in ("encoder", "dynamics", "reward_head")}
    missing = [part for part, sizes in widths.items() if len(sizes) < 2]
    if missing:
        raise ForeignFileError(f"{path}: no complete {' and '.join(missing)} in it. Tensors: {_report(renamed)}")
    embedding = renamed.get("task_embedding.weight")
    tasks, task_dim = embedding.shape if embedding is not None else (1, 0)
    encoder, dynamics, reward = widths["encoder"], widths["dynamics"], widths["reward_head"]
    latent = encoder[-1]
    obs_dim, action_dim = encoder[0] - task_dim, dynamics[0] - latent - task_dim
    config = WorldModelConfig(
        latent_dim=latent, encoder_hidden=tuple(encoder[1:-1]), dynamics_hidden=tuple(dynamics[1:-1]), reward_hidden=tuple(reward[1:-1]),
        task_dim=task_dim, two_hot=None if reward[-1] == 1 else TwoHot(bins=reward[-1]),
    )  # fmt: skip
    known = {len(MT30): MT30, len(MT80): MT80}.get(tasks, ())
    dims = [t.action_dim for t in known] if known and action_dim == 6 else None
    try:
        model = WorldModel(obs_dim, action_dim, tasks=tasks, action_dims=dims, config=config)
    except (ValueError, RuntimeError) as error:
        raise ForeignFileError(f"{path}: its tensors make no world model ({error}). Tensors: {_report(renamed)}") from None
    statistics = ("action_mask", "obs_mean", "obs_std", "reward_mean", "reward_std")
    _fill(path, model, renamed | {name: getattr(model, name) for name in statistics})
    return model


def _widths(tensors: Mapping[str, Tensor], part: str) -> list[int]:
    """Input width and the output width of every layer of one part."""
    layers = sorted((int(m[1]), v) for k, v in tensors.items() if (m := re.fullmatch(rf"{part}\.(\d+)\.weight", k)) and v.dim() == 2)
    return [layers[0][1].shape[1], *(v.shape[0] for _, v in layers)] if layers else []


def _actor(path: str | Path, tensors: Mapping[str, Tensor]) -> Actor:
    linear = sorted(int(m[1]) for k, v in tensors.items() if (m := re.fullmatch(r"mu_net\.(\d+)\.weight", k)) and v.dim() == 2)
    if not linear or "logstd" not in tensors:
        raise ForeignFileError(f"{path}: its actor has no mu_net or logstd. Tensors: {_report(tensors)}")
    sizes = [tensors[f"mu_net.{linear[0]}.weight"].shape[1], *(tensors[f"mu_net.{i}.weight"].shape[0] for i in linear)]
    actor = Actor(sizes[0], sizes[-1], hidden=tuple(sizes[1:-1]), norm="after_activation")
    state = {"log_std": tensors["logstd"]}
    for layer, i in enumerate(linear):
        for kind in ("weight", "bias"):
            state[f"mean.{layer}.{kind}"] = tensors[f"mu_net.{i}.{kind}"]
            if i != linear[-1]:  # Linear, Mish, LayerNorm
                state[f"mean.{layer}.ln.{kind}"] = tensors.get(f"mu_net.{i + 2}.{kind}")
    _fill(path, actor, state)
    return actor


def _critics(path: str | Path, tensors: Mapping[str, Tensor]) -> Critics:
    count = sum(k.startswith("params.") for k in tensors)
    first = tensors.get("params.0")
    if first is None or count % 4 != 2:
        raise ForeignFileError(f"{path}: its critic is not a stack of Linear-Mish-LayerNorm layers. Tensors: {_report(tensors)}")
    hidden = tuple(tensors[f"params.{4 * i}"].shape[1] for i in range(count // 4))
    critics = Critics(first.shape[2], members=first.shape[0], hidden=hidden, norm="after_activation", reduction="min")
    state = {}
    for i in range(len(hidden) + 1):
        state[f"net.weights.{i}"] = tensors[f"params.{4 * i}"].transpose(1, 2)
        state[f"net.biases.{i}"] = tensors[f"params.{4 * i + 1}"].unsqueeze(1)
        if i < len(hidden):
            state[f"net.ln_weights.{i}"] = tensors[f"params.{4 * i + 2}"].unsqueeze(1)
            state[f"net.ln_biases.{i}"] = tensors[f"params.{4 * i + 3}"].unsqueeze(1)
    _fill(path, critics, state)
    return critics


def _fill(path: str | Path, module: nn.Module, state: Mapping[str, Tensor | None]) -> None:
    """Copy every tensor; report all differences of names and shapes at once."""
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items() if v is not None}
    wrong = [
        f"{k}: {found.get(k, 'absent')}, expected {expected.get(k, 'nothing')}"
        for k in sorted(expected | found)
        if found.get(k) != expected.get(k)
    ]
    if wrong:
        raise ForeignFileError(f"{path}: {len(wrong)} tensors do not fit a {type(module).__name__}: {'; '.join(wrong)}")
    with torch.no_grad():
        module.load_state_dict({k: v for k, v in state.items() if v is not None})


def _report(tensors: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {tuple(v.shape)}" for k, v in sorted(tensors.items()) if isinstance(v, Tensor)) or "none"
