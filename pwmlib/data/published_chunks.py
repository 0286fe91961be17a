"""The published offline data: TD-MPC2's multi-task chunks into our store, and PWM's single-task files.

A chunk is a TensorDict [episodes, length] with obs, action, reward and task, padded to the widest task. It is mapped, not loaded; each
task's episodes become shards without padding. Rows mean what they mean in our store: row t holds the action that led to obs t.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pwmlib.tasks import MT30, MT80, Task

from .checkpoints import CheckpointError, described, file_sha256, read_json, write_json
from .sampler import padded_sizes
from .store import EpisodeStore
from .torch_files import ForeignFileError, read_torch_file

__all__ = ["import_chunks", "read_single_task_data", "task_set"]

EPISODES_A_SHARD = 1000


def import_chunks(
    chunks: Sequence[str | Path], folder: str | Path, tasks: Sequence[Task], *, only: Sequence[Task] | None = None, progress: bool = True
) -> pd.DataFrame:
    """Bring chunks into the episode store under `folder`; a second call does only what is missing.

    It notes each chunk's SHA-256 in `folder/imported.json` and refuses a chunk that changed since.

    Args:
        chunks: the files.
        folder: of the episode store.
        tasks: the order behind the chunks' task ids (MT30 or MT80).
        only: import these tasks; by default all.
        progress: show a bar.

    Returns:
        Episodes of each task and chunk.

    Raises:
        ForeignFileError: a file is not such a chunk, or a number that is no padding is not finite.
    """
    notes_path = Path(folder) / "imported.json"
    notes = _read_notes(notes_path)
    rows = []
    for path in tqdm([Path(c) for c in chunks], desc="chunks", disable=not progress):
        obs, action, reward, task = _chunk(path, tasks)
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
                    store.write_rows(shard, *_unpadded(tasks[index], obs[part], action[part], reward[part], path))
            rows.append({"chunk": path.name, "task": tasks[index].name, "episodes": len(mine), "length": obs.shape[1]})
        notes[path.name] = {"sha256": digest, "bytes": path.stat().st_size, "episodes": len(obs)}
        write_json(notes_path, notes)
    return pd.DataFrame(rows)


def task_set(path: str | Path) -> tuple[Task, ...]:
    """Tell MT30 from MT80 by the width of a chunk's observations."""
    (obs,) = _tensors(Path(path), "a chunk", "obs")
    return MT80 if obs.shape[-1] > max(t.obs_dim for t in MT30) else MT30


def _read_notes(path: Path) -> dict[str, dict]:
    try:
        notes = read_json(path) if path.is_file() else {}
        if all(isinstance(note["sha256"], str) for note in notes.values()):
            return notes
    except (CheckpointError, KeyError, TypeError):
        pass
    raise ForeignFileError(f"{path}: not the list of imported chunks; delete it to check and import them again")


def _tensors(path: Path, kind: str, *names: str) -> list[Tensor]:
    content = read_torch_file(path)
    values = [content.get(name) for name in names] if isinstance(content, dict) else []
    found = [value for value in values if isinstance(value, Tensor) and value.dim()]
    if len(found) < len(names):
        raise ForeignFileError(f"{path}: {kind} holds {', '.join(names)}; found {described(content)}")
    return found


def _chunk(path: Path, tasks: Sequence[Task]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    obs, action, reward, task = _tensors(path, "a chunk", "obs", "action", "reward", "task")
    width, actions = padded_sizes(tasks)
    lead = obs.shape[:2]
    got = [tuple(value.shape) for value in (obs, action, reward, task)]
    floats = obs.is_floating_point() and action.is_floating_point() and reward.is_floating_point()
    if obs.dim() != 3 or got != [(*lead, width), (*lead, actions), lead, lead] or not floats or 0 in lead:
        shapes = dict(zip(("obs", "action", "reward", "task"), got, strict=True))
        raise ForeignFileError(
            f"{path}: expected obs [E, L, {width}], action [E, L, {actions}], reward and task [E, L] for {len(tasks)} tasks, of one or "
            f"more episodes, all but task floating-point; got {shapes}, {obs.dtype}, {action.dtype}, {reward.dtype}"
        )
    whole = task.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)
    if lead[1] < 2 or not whole or int(task.min()) < 0 or int(task.max()) >= len(tasks) or bool((task != task[:, :1]).any()):
        raise ForeignFileError(
            f"{path}: task must be one id below {len(tasks)} in each episode of 2 or more rows; got {tuple(task.shape)} {task.dtype}"
        )
    return obs, action, reward, task


def _unpadded(task: Task, obs: Tensor, action: Tensor, reward: Tensor, source: Path) -> tuple[np.ndarray, list[dict]]:
    rows = torch.cat([obs[..., : task.obs_dim], action[..., : task.action_dim], reward.unsqueeze(-1)], -1).float()
    rows[:, 0, task.obs_dim :] = 0
    if not rows.isfinite().all():
        raise ForeignFileError(f"{source}: {int((~rows.isfinite()).sum())} numbers of {task.name} are not finite")
    rows[:, 0, task.obs_dim :] = torch.nan
    returns = rows[:, 1:, -1].double().sum(1).tolist()
    described = [{"behaviour": f"published {source.name}", "seed": None, "success": None, "touched": None, "return": r} for r in returns]
    return rows.numpy(), described


def read_single_task_data(path: str | Path) -> dict[str, Tensor]:
    """Read PWM's single-task data: obs [E, L, obs_dim], action [E, L, action_dim], reward and term (bool) [E, L]; row 0 as in a chunk.

    Raises ForeignFileError for a file that holds anything else.
    """
    names = ("obs", "action", "reward", "term")
    content: dict[str, Tensor] = dict(zip(names, _tensors(Path(path), "single-task data", *names), strict=True))
    lead = content["obs"].shape[:2]
    dims = {"obs": 3, "action": 3, "reward": 2, "term": 2}
    if 0 in lead or any(v.dim() != dims[k] or v.shape[:2] != lead or v.is_floating_point() == (k == "term") for k, v in content.items()):
        got = ", ".join(f"{name} {tuple(v.shape)} {v.dtype}" for name, v in content.items())
        raise ForeignFileError(
            f"{path}: expected floating-point obs and action [E, L, width], reward [E, L] and true-or-false term [E, L]; got {got}"
        )
    return content
