"""Published checkpoints as this library's modules: TD-MPC2's (old and new layout, 1M to 317M) and PWM's agents.

Sizes are inferred from the tensors' shapes. The Q-ensemble and policy prior of TD-MPC2 are not part of PWM and are left out.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pwmlib.data.checkpoints import described, file_sha256, write_atomic
from pwmlib.data.torch_files import ForeignFileError, read_torch_file
from pwmlib.model.twohot import TwoHot
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.actor_critic import Actor, Critics
from pwmlib.tasks import MT30, MT80

__all__ = ["ReleasedAgent", "load_released", "save_released"]

_STATISTICS = ("obs_mean", "obs_std", "reward_mean", "reward_std")
"""Of the data; the published models have none, files of `save_released` may."""
_IGNORED = ("_pi.", "_Qs.", "_target_Qs", "_detach_Qs", "_action_masks", "log_std_min", "log_std_dif")


@dataclass(frozen=True)
class ReleasedAgent:
    """What a published file holds."""

    world_model: WorldModel
    actor: Actor | None
    critics: Critics | None
    """Actor and critics are only in PWM's agent files."""
    sha256: str
    """The checksum of the file."""


def load_released(path: str | Path) -> ReleasedAgent:
    """Read a TD-MPC2 checkpoint {"model": ...} or a PWM agent {"actor", "critic", "world_model", ...}.

    Raises ForeignFileError with a report of names and shapes where the file's tensors do not make a model.
    """
    content = read_torch_file(path)
    if not isinstance(content, dict) or not {"model", "world_model"} & set(content):
        raise ForeignFileError(
            f"{path}: expected a TD-MPC2 checkpoint (key 'model') or a PWM agent (key 'world_model'), found {described(content)}"
        )
    model = _world_model(path, _tensors(path, content, "world_model" if "world_model" in content else "model"))
    actor = _actor(path, _tensors(path, content, "actor")) if "actor" in content else None
    critics = _critics(path, _tensors(path, content, "critic")) if "critic" in content else None
    return ReleasedAgent(model, actor, critics, file_sha256(path))


def _tensors(path: str | Path, content: Mapping[str, Any], part: str) -> dict[str, Tensor]:
    """The floating-point tensors of one part of the file, by name."""
    if not isinstance(content[part], dict):
        raise ForeignFileError(f"{path}: its {part} must be a dictionary of tensors, found {described(content[part])}")
    return {k: v for k, v in content[part].items() if isinstance(k, str) and isinstance(v, Tensor) and v.is_floating_point()}


def _world_model(path: str | Path, tensors: Mapping[str, Tensor]) -> WorldModel:
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.startswith(_IGNORED):
            continue
        name = key.replace("_encoder.state.", "_encoder.").removeprefix("_")
        for theirs, ours in (("task_emb.", "task_embedding."), ("reward.", "reward_head.")):
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        renamed[name] = value
    encoder, dynamics, reward = widths = [_widths(renamed, part + r"\.(\d{1,3})") for part in ("encoder", "dynamics", "reward_head")]
    embedding = renamed.get("task_embedding.weight", torch.empty(1, 0))
    if not all(widths) or embedding.dim() != 2:
        raise ForeignFileError(
            f"{path}: no encoder, dynamics and reward head of consecutive layers, or no task embedding [tasks, width], in it. "
            f"Tensors: {described(renamed)}"
        )
    tasks, task_dim = embedding.shape
    latent = encoder[-1]
    obs_dim, action_dim = encoder[0] - task_dim, dynamics[0] - latent - task_dim
    # Statistics and masks are not in the file, and their size is not bounded by it otherwise.
    if obs_dim < 1 or action_dim < 1 or tasks * (2 * obs_dim + action_dim) > sum(v.numel() for v in renamed.values()):
        raise ForeignFileError(
            f"{path}: its tensors make no world model ({tasks} tasks, {obs_dim} observations, {action_dim} actions). "
            f"Tensors: {described(renamed)}"
        )
    known = {len(MT30): MT30, len(MT80): MT80}.get(tasks, ())
    dims = [t.action_dim for t in known] if known and action_dim == 6 else None

    def build() -> WorldModel:
        config = WorldModelConfig(
            latent_dim=latent, encoder_hidden=tuple(encoder[1:-1]), dynamics_hidden=tuple(dynamics[1:-1]),
            reward_hidden=tuple(reward[1:-1]), task_dim=task_dim, two_hot=None if reward[-1] == 1 else TwoHot(bins=reward[-1]),
        )  # fmt: skip
        return WorldModel(obs_dim, action_dim, tasks=tasks, action_dims=dims, config=config)

    return _filled(path, build, renamed, own=("action_mask", *(name for name in _STATISTICS if name not in renamed)))


def save_released(path: str | Path, model: WorldModel) -> None:
    """Write a world model in the layout of TD-MPC2's published checkpoints (the older one), for `load_released`.

    A model that standardises its data has four more entries than the published ones, `_obs_mean`, `_obs_std`, `_reward_mean` and
    `_reward_std`.

    Args:
        path: the file.
        model: a model with the published architecture: LayerNorm, Mish, SimNorm over groups of 8, no residual, no termination head.

    Raises:
        ValueError: the layout has no place for something that the model has.
    """
    config, sizes = model.config, ("latent_dim", "encoder_hidden", "dynamics_hidden", "reward_hidden", "task_dim")
    two_hot = config.two_hot and TwoHot(bins=config.two_hot.bins)
    held = WorldModelConfig(**{name: getattr(config, name) for name in sizes}, two_hot=two_hot)
    if config != held or not config.task_dim:
        raise ValueError(f"save_released: the published layout holds {held} and needs a task_dim above 0, got {config}")
    standardised = any(bool((getattr(model, name) != float(name.endswith("std"))).any()) for name in _STATISTICS)
    state = {}
    for name, value in model.state_dict().items():
        if name != "action_mask" and (standardised or name not in _STATISTICS):
            for ours, theirs in (("task_embedding.", "task_emb."), ("reward_head.", "reward."), ("encoder.", "encoder.state.")):
                name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
            state[f"_{name}"] = value.detach().cpu()
    content = io.BytesIO()
    torch.save({"model": state}, content)
    write_atomic(path, content.getvalue())


def _widths(tensors: Mapping[str, Tensor], layer: str) -> list[int]:
    """Input width and the output width of every layer whose name matches; [] unless each layer takes what the one before gives."""
    weights = {int(m[1]): v.shape for k, v in tensors.items() if (m := re.fullmatch(layer + r"\.weight", k)) and v.dim() == 2}
    shapes = [weights[i] for i in sorted(weights)]
    if not shapes or any(before[0] != after[1] for before, after in pairwise(shapes)) or 0 in sum(shapes, ()):
        return []
    return [shapes[0][1], *(s[0] for s in shapes)]


def _actor(path: str | Path, tensors: Mapping[str, Tensor]) -> Actor:
    name = r"mu_net\.(\d{1,3})"
    linear = sorted(int(m[1]) for k, v in tensors.items() if (m := re.fullmatch(name + r"\.weight", k)) and v.dim() == 2)
    sizes = _widths(tensors, name)
    if not sizes or "logstd" not in tensors:
        raise ForeignFileError(f"{path}: its actor has no mu_net of consecutive layers, or no logstd. Tensors: {described(tensors)}")
    state: dict[str, Tensor | None] = {"log_std": tensors["logstd"]}
    for layer, i in enumerate(linear):
        for kind in ("weight", "bias"):
            state[f"mean.{layer}.{kind}"] = tensors.get(f"mu_net.{i}.{kind}")
            if i != linear[-1]:  # Linear, Mish, LayerNorm
                state[f"mean.{layer}.ln.{kind}"] = tensors.get(f"mu_net.{i + 2}.{kind}")
    return _filled(path, lambda: Actor(sizes[0], sizes[-1], hidden=tuple(sizes[1:-1]), norm="after_activation"), state)


def _critics(path: str | Path, tensors: Mapping[str, Tensor]) -> Critics:
    count = sum(k.startswith("params.") for k in tensors)
    params = [tensors.get(f"params.{i}", torch.empty(0)) for i in range(count)]
    weights = params[::4]
    chained = all(a.shape[1] == b.shape[2] for a, b in pairwise(weights)) if all(w.dim() == 3 for w in weights) else False
    if count % 4 != 2 or not chained or any(p.dim() != 2 for i, p in enumerate(params) if i % 4) or not 1 <= len(weights[0]) <= 100:
        raise ForeignFileError(f"{path}: its critic is not a stack of Linear-Mish-LayerNorm layers. Tensors: {described(tensors)}")
    members, _, state_dim = weights[0].shape
    hidden = tuple(w.shape[1] for w in weights[:-1])
    state = {}
    for i in range(len(hidden) + 1):
        state[f"net.weights.{i}"] = params[4 * i].transpose(1, 2)
        state[f"net.biases.{i}"] = params[4 * i + 1].unsqueeze(1)
        if i < len(hidden):
            state[f"net.ln_weights.{i}"] = params[4 * i + 2].unsqueeze(1)
            state[f"net.ln_biases.{i}"] = params[4 * i + 3].unsqueeze(1)
    return _filled(path, lambda: Critics(state_dim, members=members, hidden=hidden, norm="after_activation", reduction="min"), state)


_Module = TypeVar("_Module", bound=nn.Module)


def _filled(path: str | Path, build: Callable[[], _Module], state: Mapping[str, Tensor | None], own: tuple[str, ...] = ()) -> _Module:
    """What `build` makes, with every tensor but its `own` copied; all differences of names and shapes are reported at once.

    It is first built on the meta device, so that no memory is taken for a module that the file's tensors do not fill.
    """
    try:
        with torch.device("meta"):
            empty = build()
    except (ValueError, RuntimeError) as error:
        raise ForeignFileError(f"{path}: its tensors make no model ({error}). Tensors: {described(state)}") from None
    expected = {k: tuple(v.shape) for k, v in empty.state_dict().items() if k not in own}
    found = {k: tuple(v.shape) for k, v in state.items() if v is not None}
    wrong = [
        f"{k}: {found.get(k, 'absent')}, expected {expected.get(k, 'nothing')}"
        for k in sorted(expected | found)
        if found.get(k) != expected.get(k)
    ]
    if wrong:
        more = f" and {len(wrong) - 50} more" if len(wrong) > 50 else ""
        raise ForeignFileError(f"{path}: {len(wrong)} tensors do not fit a {type(empty).__name__}: {'; '.join(wrong[:50])}{more}")
    module = build()
    module.load_state_dict(state, strict=False)
    return module
