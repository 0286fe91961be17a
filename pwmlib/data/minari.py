"""Episodes from and to Minari, the Farama Foundation's format of offline data; needs the package `minari`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from minari import MinariDataset, create_dataset_from_buffers
from minari.data_collector import EpisodeBuffer

from pwmlib.tasks import Task

__all__ = ["read_minari", "write_minari"]


def read_minari(dataset: MinariDataset) -> tuple[Task, list[np.ndarray]]:
    """Read all episodes as the rows that world models learn from.

    Actions are scaled from their space to [-1, 1]. Ends of episodes are not kept: a world model of such data takes every episode to go on.

    Args:
        dataset: of `minari.load_dataset`; observations and actions are vectors, actions of bounded entries.

    Returns:
        A task of that name, whose decisions are those of the longest episode, and for each length of episodes an array
        [episodes, length + 1, obs_dim + action_dim + 1], as `pwmlib.data.SliceSampler` takes them.

    Raises:
        ValueError: the spaces are others, or there is no episode; it names them.
    """
    name, low, high = dataset.spec.dataset_id, *_bounds(dataset.action_space)
    obs_dim, action_dim = _vectors(dataset.observation_space, "observations").shape[0], len(low)
    lengths: dict[int, list[np.ndarray]] = {}
    for episode in dataset.iterate_episodes():
        rows = np.full((len(episode.rewards) + 1, obs_dim + action_dim + 1), np.nan, np.float32)
        rows[:, :obs_dim] = episode.observations
        rows[1:, obs_dim:-1] = 2 * (episode.actions - low) / (high - low) - 1
        rows[1:, -1] = episode.rewards
        lengths.setdefault(len(rows), []).append(rows)
    if not lengths:
        raise ValueError(f"{name}: no episode in it")
    task = Task(name.replace("/", "-"), "own", obs_dim, action_dim, decisions=max(lengths) - 1)
    return task, [np.stack(group) for _, group in sorted(lengths.items())]


def write_minari(dataset_id: str, task: Task, arrays: Sequence[np.ndarray], **about: Any) -> MinariDataset:
    """Write episodes as a Minari dataset; each is marked as truncated at its end.

    Args:
        dataset_id: such as "pwm/walker-walk-v0"; it must not be there yet.
        task: what they are of.
        arrays: shards of rows, as of `EpisodeStore.arrays`.
        about: what else `minari.create_dataset_from_buffers` notes, such as author.

    Returns:
        The dataset; Minari keeps it in its own folder (MINARI_DATASETS_PATH).
    """
    o, buffers = task.obs_dim, []
    for rows in (episode for shard in arrays for episode in shard):
        ends = [*[False] * (len(rows) - 2), True]
        numbers = {"observations": rows[:, :o], "actions": rows[1:, o:-1], "rewards": rows[1:, -1]}
        buffers.append(EpisodeBuffer(**numbers, terminations=[False] * len(ends), truncations=ends))
    spaces = {"observation_space": Box(-np.inf, np.inf, (o,)), "action_space": Box(-1.0, 1.0, (task.action_dim,))}
    return create_dataset_from_buffers(dataset_id, buffers, **spaces, **about)


def _vectors(space: Space, what: str) -> Box:
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise ValueError(f"{what} must be vectors, a Box of one dimension; got {space}")
    return space


def _bounds(space: Space) -> tuple[np.ndarray, np.ndarray]:
    box = _vectors(space, "actions")
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"actions must be bounded, to be scaled to [-1, 1]; got {space}")
    return low, high
