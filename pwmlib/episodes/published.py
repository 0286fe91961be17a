"""The published offline data: TD-MPC2's multi-task chunks into our store, and PWM's single-task files.

A chunk is a TensorDict [episodes, length] with obs, action, reward and task, padded to the widest task. It is mapped, not loaded; each
task's episodes become shards without padding. Rows mean what they mean in our store: row t holds the action that led to obs t.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..checkpoints import write_atomic
from ..foreign import ForeignFileError, file_sha256, read_torch_file
from ..tasks import Task
from .store import EpisodeStore

__all__ = ["import_chunks", "read_single_task_data"]

EPISODES_A_SHARD = 1000


def import_chunks(
    chunks: Sequence[str | Path], folder: str | Path, tasks: Sequence[Task], *, only: Sequence[Task] | None = None, progress: bool = True
) -> pd.DataFrame:
    """Bring chunks into the episode store under `folder`; a second call does only what is missing. Returns episodes a task and chunk.

    tasks: the order behind the chunks' task ids (MT30 or MT80). only: import these tasks, default all. Notes each chunk's SHA-256 in
    `folder/imported.json` and refuses a chunk that changed since. Raises ForeignFileError for a file that is not such a chunk.
    """
    notes_path = Path(folder) / "imported.json"
    notes = json.loads(notes_path.read_text()) if notes_path.is_file() else {}
    rows = []
    for path in tqdm([Path(c) for c in chunks], desc="chunks", disable=not progress):
        content = read_torch_file(path)
        obs, action, reward, task = _check(path, content, tasks)
        digest, known = file_sha256(path), notes.get(path.name)
        if known and known["sha256"] != digest:
            raise ForeignFileError(f"{path}: SHA-256 {digest[:16]}..., but {known['sha256'][:16]}... was imported under that name before")
        for index in torch.unique(task[:, 0]).tolist():
            if only is not None and tasks[index] not in only:
                continue
            mine = torch.nonzero(task[:, 0] == index).squeeze(1)
            store = EpisodeStore(folder, tasks[index])
            for number, part in enumerate(mine.split(EPISODES_A_SHARD)):
                shard = f"{path.stem}-{number:04d}"
                if not store.has(shard):
                    store.write_rows(shard, *_unpadded(tasks[index], obs[part], action[part], reward[part], path.name))
            rows.append({"chunk": path.name, "task": tasks[index].name, "episodes": len(mine), "length": obs.shape[1]})
        notes[path.name] = {"sha256": digest, "bytes": path.stat().st_size, "episodes": len(obs)}
        write_atomic(notes_path, json.dumps(notes, indent=1, sort_keys=True))
    return pd.DataFrame(rows)


def _check(path: Path, content: object, tasks: Sequence[Task]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    names = ("obs", "action", "reward", "task")
    if not isinstance(content, dict) or not set(names) <= set(content):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ForeignFileError(f"{path}: a chunk holds obs, action, reward and task; found {found}")
    obs, action, reward, task = (content[name] for name in names)
    width, actions = max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)
    lead = obs.shape[:2]
    shapes = {name: tuple(content[name].shape) for name in names}
    if obs.dim() != 3 or shapes != {"obs": (*lead, width), "action": (*lead, actions), "reward": (*lead,), "task": (*lead,)}:
        raise ForeignFileError(
            f"{path}: expected obs [E, L, {width}], action [E, L, {actions}], reward and task [E, L] for {len(tasks)} tasks; got {shapes}"
        )
    if lead[1] < 2 or int(task.min()) < 0 or int(task.max()) >= len(tasks) or bool((task != task[:, :1]).any()):
        raise ForeignFileError(f"{path}: task must be one id below {len(tasks)} in each episode of 2 or more rows; got {shapes['task']}")
    return obs, action, reward, task


def _unpadded(task: Task, obs: Tensor, action: Tensor, reward: Tensor, source: str) -> tuple[np.ndarray, list[dict]]:
    rows = torch.cat([obs[..., : task.obs_dim], action[..., : task.action_dim], reward.unsqueeze(-1)], -1).float()
    rows[:, 1:] = rows[:, 1:].nan_to_num()
    rows[:, 0, task.obs_dim :] = torch.nan
    returns = rows[:, 1:, -1].double().sum(1).tolist()
    described = [{"behaviour": f"published {source}", "seed": None, "success": None, "touched": None, "return": r} for r in returns]
    return rows.numpy(), described


def read_single_task_data(path: str | Path) -> dict[str, Tensor]:
    """PWM's single-task data: obs [E, L, obs_dim], action [E, L, action_dim], reward [E, L], term [E, L] (bool); row 0 as in a chunk."""
    content = read_torch_file(path)
    names = ("obs", "action", "reward", "term")
    if not isinstance(content, dict) or not set(names) <= set(content):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ForeignFileError(f"{path}: single-task data hold obs, action, reward and term; found {found}")
    lead = content["obs"].shape[:2]
    if any(content[name].shape[:2] != lead for name in names):
        raise ForeignFileError(f"{path}: different lengths: { {name: tuple(content[name].shape) for name in names} }")
    return {name: content[name] for name in names}
