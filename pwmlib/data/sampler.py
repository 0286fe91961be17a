"""Batches of padded slices and start states from episode stores."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pwmlib.tasks import Task

__all__ = ["SliceSampler", "padded_sizes"]

PART = 64 * 2**20
"""Bytes of a shard that are looked at together when statistics are computed."""


def padded_sizes(tasks: Sequence[Task]) -> tuple[int, int]:
    """Give observation and action size of a model for these tasks: the largest of each."""
    return max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)


class SliceSampler:
    """Draws uniformly over tasks, then episodes, then positions. Rows stay in their memory maps; only sampled slices are read.

    arrays: for each task its shards, [episodes, length, obs_dim + action_dim + 1], as `EpisodeStore.arrays` gives them; the length may
    differ between shards, and a task without any is never drawn. All are padded to the sizes of the largest of the tasks.
    """

    def __init__(self, tasks: Sequence[Task], arrays: Sequence[Sequence[np.ndarray]]):
        self.tasks = list(tasks)
        self.obs_dim, self.action_dim = padded_sizes(self.tasks)
        # Plain views of the memory maps: indexing np.memmap itself takes several times as long.
        self._arrays = [[np.asarray(a) for a in shards] for shards in arrays]

    def add(self, task_index: int, rows: np.ndarray) -> None:
        """Append episodes [n, decisions + 1, width] of a task (online collection)."""
        self._arrays[task_index].append(rows)

    def clear(self, task_index: int) -> None:
        """Forget a task's episodes."""
        self._arrays[task_index] = []

    def slices(
        self, batch: int, horizon: int, rng: np.random.Generator, *, only: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw obs [horizon + 1, batch, obs_dim], action [horizon, batch, action_dim], reward [horizon, batch], task long [batch].

        only: the index of the one task to draw from, instead of all.
        """
        there = np.flatnonzero([len(shards) for shards in self._arrays]) if only is None else np.array([only])
        which = there[rng.integers(len(there), size=batch)]
        obs = np.zeros((horizon + 1, batch, self.obs_dim), np.float32)
        action = np.zeros((horizon, batch, self.action_dim), np.float32)
        reward = np.zeros((horizon, batch), np.float32)
        for i in np.unique(which):
            at = np.flatnonzero(which == i)
            rows = self._gather(i, len(at), horizon + 1, rng)
            o, a = self.tasks[i].obs_dim, self.tasks[i].action_dim
            obs[:, at, :o] = rows[..., :o]
            action[:, at, :a] = rows[1:, :, o : o + a]
            reward[:, at] = rows[1:, :, -1]
        return torch.from_numpy(obs), torch.from_numpy(action), torch.from_numpy(reward), torch.from_numpy(which)

    def start_observations(self, task_index: int, batch: int, rng: np.random.Generator, *, margin: int = 0) -> Tensor:
        """Draw observations of one task, [batch, obs_dim] padded, none of an episode's last `margin` rows."""
        t = self.tasks[task_index]
        rows = self._gather(task_index, batch, margin + 1, rng)[0]
        obs = np.zeros((batch, self.obs_dim), np.float32)
        obs[:, : t.obs_dim] = rows[:, : t.obs_dim]
        return torch.from_numpy(obs)

    def statistics(self) -> tuple[Tensor, Tensor, float, float]:
        """Compute mean and deviation of observations per task, [tasks, obs_dim] each (0 and 1 in the padding), and of all rewards."""
        mean, std = torch.zeros(len(self.tasks), self.obs_dim), torch.ones(len(self.tasks), self.obs_dim)
        rewards = _Moments(1)
        for i, (t, shards) in enumerate(zip(self.tasks, self._arrays, strict=True)):
            seen = _Moments(t.obs_dim)
            for shard in shards:
                for part in np.array_split(shard, max(1, shard.nbytes // PART)):  # never a whole task in memory
                    seen.add(part[..., : t.obs_dim].reshape(-1, t.obs_dim))
                    rewards.add(part[:, 1:, -1:].reshape(-1, 1))
            mean[i, : t.obs_dim] = torch.from_numpy(seen.mean).float()
            # A constant entry (an absent object) carries nothing: leave its scale alone.
            std[i, : t.obs_dim] = torch.from_numpy(np.where(seen.std < 1e-4, 1.0, seen.std)).float()
        return mean, std, float(rewards.mean[0]), float(max(rewards.std[0], 1e-6))

    def _gather(self, task_index: int, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """`count` random slices, shape [length, count, width]."""
        shards = self._arrays[task_index]
        ends = np.cumsum([len(a) for a in shards])
        episode = rng.integers(ends[-1], size=count)
        shard = np.searchsorted(ends, episode, side="right")
        lengths = np.array([a.shape[1] for a in shards])
        if lengths.min() < length:
            raise ValueError(f"{self.tasks[task_index].name}: slices of {length} rows asked for, but episodes have {lengths.min()}")
        offset = rng.integers(lengths[shard] - length + 1)
        local = episode - np.concatenate([[0], ends[:-1]])[shard]
        rows = np.empty((length, count, shards[0].shape[2]), np.float32)
        steps = np.arange(length)[:, None]
        for s in np.unique(shard):
            at = np.flatnonzero(shard == s)
            rows[:, at] = shards[s][local[at], offset[at] + steps]
        return rows


class _Moments:
    """Mean and standard deviation of rows that come in parts (Chan et al. 1983), in float64."""

    def __init__(self, width: int):
        self.count, self.mean, self._squares = 0, np.zeros(width), np.zeros(width)

    def add(self, rows: np.ndarray) -> None:
        rows = rows.astype(np.float64)
        n, mean = len(rows), rows.mean(0)
        delta, total = mean - self.mean, self.count + len(rows)
        self._squares += ((rows - mean) ** 2).sum(0) + delta**2 * self.count * n / total
        self.mean, self.count = self.mean + delta * n / total, total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self._squares / self.count)
