"""Small trained artefacts that come with the project: a world model, start states, policies, and a card that says what they are.

A folder holds `world_model.safetensors`, `starts.safetensors`, `policies.safetensors`, `card.json` and the tables of the data and of the
gates. Everything is safetensors, JSON or CSV; nothing in it is code. The card has a checksum of each other file, checked when it is read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad

from companion.running.paths import DATA
from companion.running.runs import plain
from companion.running.stamp import environment_stamp
from pwmlib.data import EpisodeStore, SliceSampler
from pwmlib.data.checkpoints import CheckpointError, check_file, checksums, load_state, read_json, save_state, write_atomic, write_json
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.settings import SettingError
from pwmlib.tasks import Task, task

SHIPPED = DATA / "models" / "mt80"
"""The world model of all 80 tasks at scale laptop."""

CARD = "card.json"


@dataclass(frozen=True)
class Artefacts:
    """What a folder holds; files are read when first needed. Raises CheckpointError for one that is missing or damaged."""

    folder: Path

    @cached_property
    def card(self) -> dict[str, Any]:
        """Tasks, settings, command, commit, versions and machine."""
        try:
            return read_json(self.folder / CARD)
        except CheckpointError as error:
            raise CheckpointError(f"no readable model card: {error}") from None

    def _file(self, name: str) -> Path:
        """The path of one of the files, once it was compared with its checksum."""
        if name in self.card.get("files", {}):
            check_file(self.folder / name, self.card["files"][name])
        return self.folder / name

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The world model's tasks, in its order."""
        return tuple(task(name) for name in self.card["tasks"])

    def index(self, t: Task) -> int:
        """The world model's number of a task."""
        if t not in self.tasks:
            raise CheckpointError(f"{self.folder}: trained on {len(self.tasks)} tasks, {t.name} is not among them")
        return self.tasks.index(t)

    @cached_property
    def fingerprint(self) -> str:
        """Ten hexadecimal digits that identify model and start states."""
        content = b"".join(self._file(f"{name}.safetensors").read_bytes() for name in ("world_model", "starts"))
        return hashlib.sha256(content).hexdigest()[:10]

    def world_model(self) -> WorldModel:
        """Load the trained world model."""
        state = load_state(self._file("world_model.safetensors"))
        try:
            config = WorldModelConfig(**state["config"])
        except (TypeError, SettingError) as error:
            raise CheckpointError(f"{self.folder}: settings that this version does not know: {error}") from None
        dims = [t.action_dim for t in self.tasks]
        model = WorldModel(state["obs_dim"], state["action_dim"], tasks=len(dims), action_dims=dims, config=config)
        model.load_state_dict(state["weights"])
        return model

    @cached_property
    def starts(self) -> dict[str, Tensor]:
        """Task name -> observations of replay states, [n, obs_dim], from which imagined rollouts start.

        Drawn from whole episodes: PWMConfig's start_states="slice_start" does not narrow them.
        """
        return load_state(self._file("starts.safetensors"))

    def start_observations(self, number: int, batch: int, rng: np.random.Generator, *, margin: int = 0) -> Tensor:
        """A random batch of `starts` of a task by its number, padded to [batch, obs_dim], as `SliceSampler` has it; margin: ignored."""
        t = self.tasks[number]
        known = self.starts[t.name]
        obs = known[torch.from_numpy(rng.integers(len(known), size=batch))]
        return pad(obs, (0, max(other.obs_dim for other in self.tasks) - t.obs_dim))

    def policies(self) -> dict[str, dict[int, Actor]]:
        """Task name -> training seed -> policy on the model's latents; empty where none was shipped."""
        path = self._file("policies.safetensors")
        if not path.is_file():
            return {}
        saved = load_state(path)["policies"]
        return {name: {int(seed): _actor(state) for seed, state in seeds.items()} for name, seeds in saved.items()}

    def table(self, name: str) -> pd.DataFrame:
        """A table of the folder: "data", "quality", "behaviours" or another that was shipped."""
        path = self._file(f"{name}.csv")
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; expected beside the card")
        return pd.read_csv(path)


def _actor(state: Mapping[str, Tensor]) -> Actor:
    """A policy of the sizes that its weights have."""
    weights = [v for v in state.values() if v.dim() == 2]
    *hidden, action_dim = (w.shape[0] for w in weights)
    actor = Actor(weights[0].shape[1], action_dim, hidden=tuple(hidden))
    actor.load_state_dict(state)
    return actor


def ship(
    folder: Path, model: WorldModel, stores: Sequence[EpisodeStore], *, tables: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any], command: str, policies: Mapping[str, Mapping[int, Actor]] | None = None, states: int = 600,
) -> Artefacts:  # fmt: skip
    """Write a folder of artefacts.

    stores: the episodes of each task. tables: "data" and "quality" a task, "behaviours". policies: task name -> training seed -> policy.
    states: start states kept of each task.
    """
    tasks = [store.task for store in stores]
    head = {"config": plain(model.config), "obs_dim": model.obs_dim, "action_dim": model.action_dim}
    save_state(folder / "world_model.safetensors", {**head, "weights": model.state_dict()})
    starts, rng = {}, np.random.default_rng(0)
    for t, store in zip(tasks, stores, strict=True):
        starts[t.name] = SliceSampler([t], [store.arrays()]).start_observations(0, states, rng)
    save_state(folder / "starts.safetensors", starts)
    if policies:
        actors = {name: {str(seed): actor.state_dict() for seed, actor in seeds.items()} for name, seeds in policies.items()}
        save_state(folder / "policies.safetensors", {"command": command, "policies": actors, **environment_stamp()})
    for name, table in tables.items():
        write_atomic(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    card = {"tasks": [t.name for t in tasks], "settings": plain(settings), "command": command, **environment_stamp()}
    write_json(folder / CARD, {**card, "files": checksums(folder, but=CARD)})
    return Artefacts(folder)
