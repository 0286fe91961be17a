"""What a batch of environments lived through, in order, and slices of it for a world model."""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Replay"]

_HELD = ("obs", "action", "reward", "next_obs", "terminated", "ended")


class Replay:
    """The last `capacity` steps of `count` environments; the oldest give way.

    add: one step of all environments. `slices` is a `SliceSource` whose batches have `valid`, so that slices may run into the end of
    an episode: what comes after it counts for nothing.
    ending_share: fraction of the slices that hold the termination of an episode. Early policies end theirs all the time and late ones
    never do; a model that forgets what falling is like gets exploited there.
    recent_share: fraction of the slices from the last `recent_steps` steps, where the policy is now; the longer the replay, the less the
    others say about that.
    """

    def __init__(
        self, capacity: int, count: int, obs_dim: int, action_dim: int, *, ending_share: float = 0.25, recent_share: float = 0.0,
        recent_steps: int = 512,
    ):  # fmt: skip
        if not (ending_share >= 0.0 and recent_share >= 0.0 and ending_share + recent_share <= 1.0):
            raise ValueError(f"Replay: ending_share and recent_share must be in 0..1 together, got {ending_share} and {recent_share}")
        self.capacity, self.count, self.ending_share = capacity, count, ending_share
        self.recent_share, self.recent_steps = recent_share, recent_steps
        self.obs = torch.zeros(capacity, count, obs_dim)
        self.action = torch.zeros(capacity, count, action_dim)
        self.reward = torch.zeros(capacity, count)
        self.next_obs = torch.zeros(capacity, count, obs_dim)
        self.terminated = torch.zeros(capacity, count, dtype=torch.bool)
        self.ended = torch.zeros(capacity, count, dtype=torch.bool)
        self.written = 0
        """Steps added since the beginning."""
        self._terminations: deque[tuple[int, int]] = deque()
        """(step counted since the beginning, environment) of every termination that is held, in order."""

    def __len__(self) -> int:
        """Steps held, of each environment."""
        return min(self.written, self.capacity)

    def add(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor, truncated: Tensor) -> None:
        """Add one step of all environments, [count, ...] each; `next_obs` is from before any reset."""
        i = self.written % self.capacity
        self.obs[i], self.action[i], self.reward[i], self.next_obs[i] = obs, action, reward, next_obs
        self.terminated[i], self.ended[i] = terminated, terminated | truncated
        self._terminations.extend((self.written, env) for env in torch.nonzero(self.terminated[i]).flatten().tolist())
        self.written += 1
        while self._terminations and self._terminations[0][0] < self.written - self.capacity:
            self._terminations.popleft()

    @torch.no_grad()
    def live(self, env: Any, action: Tensor) -> Any:
        """Take a step of all environments (`pwmlib.model.dynamics.Episodes`), add it and return it; action: [count, action_dim]."""
        obs = env.detach()
        step = env.step(action)
        self.add(obs, action, step.reward, step.final_obs, step.terminated, step.truncated)
        return step

    def slices(self, batch: int, horizon: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw obs [horizon + 1, batch, n], action [horizon, batch, m], reward, task (zeros) [batch], valid and terminated.

        Those without a shape here have [horizon, batch].
        """
        age, env = self._places(batch, horizon, rng)
        oldest = self.written - len(self)
        rows = (oldest + age[None] + np.arange(horizon)[:, None]) % self.capacity
        at = (torch.from_numpy(rows), torch.from_numpy(env).expand(horizon, -1))
        obs = torch.cat([self.obs[at[0][0], at[1][0]][None], self.next_obs[at]])
        ended = self.ended[at].float()
        valid = torch.cat([torch.ones(1, batch), torch.cumprod(1.0 - ended, 0)[:-1]])
        return obs, self.action[at], self.reward[at], torch.zeros(batch, dtype=torch.long), valid, self.terminated[at]

    def start_observations(self, batch: int, rng: np.random.Generator, *, initial_share: float = 0.0) -> Tensor:
        """Draw observations of random steps, [batch, n]; `initial_share` of them first ones of episodes."""
        age, env = rng.integers(len(self), size=batch), rng.integers(self.count, size=batch)
        oldest = self.written - len(self)
        if initial_share:
            # The step after an episode's end is the next one's first.
            rows, envs = np.nonzero(self.ended[: len(self)].numpy())
            ages = (rows - oldest) % self.capacity + 1
            rows, envs = ages[ages < len(self)], envs[ages < len(self)]
            some = np.flatnonzero(rng.random(batch) < initial_share)
            if len(rows):
                pick = rng.integers(len(rows), size=len(some))
                age[some], env[some] = rows[pick], envs[pick]
        return self.obs[torch.from_numpy((oldest + age) % self.capacity), torch.from_numpy(env)]

    def statistics(self) -> tuple[Tensor, Tensor, float, float]:
        """Compute mean and standard deviation of the observations, [1, n] each, and of the rewards."""
        obs, reward = self.obs[: len(self)].flatten(0, 1), self.reward[: len(self)]
        return obs.mean(0)[None], obs.std(0).clamp(min=1e-3)[None], float(reward.mean()), float(reward.std().clamp(min=1e-6))

    def _places(self, batch: int, horizon: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Age (0 is the oldest step) and environment of the first step of each slice."""
        starts = len(self) - horizon + 1
        if starts < 1:
            raise ValueError(f"Replay: slices of {horizon} steps asked for, but it holds {len(self)}")
        age, env, kind = rng.integers(starts, size=batch), rng.integers(self.count, size=batch), rng.random(batch)
        recent = np.flatnonzero(kind > 1.0 - self.recent_share)
        age[recent] = rng.integers(max(0, starts - self.recent_steps), starts, size=len(recent))
        if held := len(self._terminations):
            some = np.flatnonzero(kind < self.ending_share)
            picked = [self._terminations[i] for i in rng.integers(held, size=len(some))]
            ends, envs = np.array(picked, dtype=np.int64).reshape(-1, 2).T
            age[some] = np.clip(ends - (self.written - len(self)) - rng.integers(horizon, size=len(some)), 0, starts - 1)
            env[some] = envs
        return age, env

    def state_dict(self) -> dict[str, Any]:
        """Return what is held, trimmed."""
        return {**{name: getattr(self, name)[: len(self)].clone() for name in _HELD}, "written": self.written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.written = int(state["written"])
        for name in _HELD:
            getattr(self, name)[: len(self)] = state[name]
        oldest = self.written - len(self)
        rows, envs = np.nonzero(self.terminated[: len(self)].numpy())
        steps = oldest + (rows - oldest) % self.capacity
        self._terminations = deque(sorted(zip(steps.tolist(), envs.tolist(), strict=True)))
