"""Environments that remember the returns of the episodes that are learned from: the training return that the paper plots."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pwmlib.sim.engine.bridge import Step

from .env import DifferentiableEnv
from .registry import EnvSpec

__all__ = ["TrainingEnv", "evaluate_policy"]


class TrainingEnv(DifferentiableEnv):
    """A `DifferentiableEnv` that adds up each episode's rewards, whoever steps it and with whatever noise.

    An episode that was begun at a later age (`reset(spread=True)`) is not a whole one and is left out.
    """

    _run: Tensor | None = None

    def reset(self, *, seed: int | None = None, spread: bool = False) -> Tensor:
        """Reset as `DifferentiableEnv` does, and forget what the episodes before had earned."""
        obs = super().reset(seed=seed, spread=spread)
        self._run = torch.zeros(self.count, device=obs.device)
        """Undiscounted reward of the present episodes so far."""
        self._whole = self.simulator.counters["steps"].to(obs.device) == 0
        self._ended = torch.zeros(2, dtype=torch.float64, device=obs.device)
        """Sum of the returns of the whole episodes that ended, and their number."""
        return obs

    def step(self, action: Tensor) -> Step:
        """Step as `DifferentiableEnv` does.

        Raises:
            RuntimeError: there was no reset before.
            ValueError: an action is not finite.
        """
        if self._run is None:
            raise RuntimeError("TrainingEnv: step before reset, so no episode has begun")
        step = super().step(action)
        ended = step.terminated | step.truncated
        self._run = self._run + step.reward.detach()
        counted = ended & self._whole
        self._ended += torch.stack([torch.where(counted, self._run, 0.0).sum(), counted.sum()])
        self._run, self._whole = torch.where(ended, 0.0, self._run), self._whole | ended
        return step

    def training_return(self) -> float | None:
        """Average the returns of the whole episodes that ended since the last call; None where none did."""
        if self._run is None:
            return None
        total, number = self._ended.tolist()
        self._ended.zero_()
        return total / number if number else None

    def state_dict(self) -> dict[str, Any]:
        """Say where the environments are, and what the present episodes have earned."""
        returns = {} if self._run is None else {"run": self._run, "whole": self._whole, "ended": self._ended.clone()}
        return {**super().state_dict(), "returns": returns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another environment of the same seed was."""
        super().load_state_dict(state)
        if state["returns"]:
            returns = (state["returns"][name].to(self.simulator.device, copy=True) for name in ("run", "whole", "ended"))
            self._run, self._whole, self._ended = returns


@torch.no_grad()
def evaluate_policy(
    policy: Callable[[Tensor, None], Tensor], name: str | EnvSpec, *, episodes: int = 64, seed: int = 10_000, stiffness: float = 1.0,
    device: str | torch.device | None = None,
) -> Tensor:  # fmt: skip
    """Measure the undiscounted returns of deterministic episodes in other environments than those of training, [episodes].

    Args:
        policy: (obs [episodes, obs_dim], None) -> action [episodes, action_dim].
        name: an environment's name or specification.
        episodes: how many.
        seed: of their reset states.
        stiffness: of the contacts, as the policy was trained with.
        device: where the policy is.
    """
    env = DifferentiableEnv(name, episodes, seed=seed, stiffness=stiffness, device=device)
    obs, running, total = env.reset(), torch.ones(episodes, dtype=torch.bool), torch.zeros(episodes)
    for _ in range(env.spec.episode_length):
        step = env.step(policy(obs, None))
        total += step.reward.cpu().where(running, 0.0)
        running &= ~(step.terminated | step.truncated).cpu()
        if not running.any():
            break
        obs = step.obs
    return total
