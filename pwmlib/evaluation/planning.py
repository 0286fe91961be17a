"""Sampling-based planning in dynamics (MPPI, Williams et al. 2017): the gate of a world model before a policy is extracted from it.

Where a planner that sees only the model fails in the real task, the model is suspect, though a policy may find what the planner does not.
"""

import numpy as np
import torch
from torch import Tensor

from pwmlib.data.store import record
from pwmlib.evaluation.scores import EVALUATION_SEED, Evaluation, summarise
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.settings import Count, Fraction, NonNegative, Positive, SettingError, settings
from pwmlib.tasks import Environment

__all__ = ["MPPI", "PlannerConfig", "evaluate_planner"]


@settings
class PlannerConfig:
    """Settings of a planner without a terminal value: it plans with the model alone."""

    samples: Count = 96
    horizon: Count = 40
    iterations: Count = 1
    elites: Count = 12
    noise: NonNegative = 0.7
    """Standard deviation of sampled actions; correlated over time as below."""
    correlation: Fraction = 0.8
    temperature: Positive = 0.2
    """Of the exponential weights, in units of the elites' return spread."""
    gamma: Fraction = 0.99

    def __post_init__(self) -> None:
        if self.elites > self.samples:
            raise SettingError("elites", self.elites, f"must be at most samples={self.samples}")


class MPPI:
    """Plans with a frozen world model and keeps its plan, shifted by one, as the next start.

    Called with (observation [obs_dim], decision) -> action [action_dim]; a new instance for each episode.
    """

    def __init__(self, view: FrozenWorldModel, action_dim: int, config: PlannerConfig | None = None, *, seed: int = 0):
        self.view, self.action_dim, self.config = view, action_dim, config or PlannerConfig()
        self.device = view.model.obs_mean.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.plan = torch.zeros(self.config.horizon, view.action_dim, device=self.device)

    @torch.no_grad()
    def __call__(self, obs: np.ndarray, step: int) -> np.ndarray:
        """Return the first action of the improved plan."""
        c = self.config
        padded = torch.nn.functional.pad(torch.from_numpy(obs), (0, self.view.obs_dim - len(obs)))
        start = self.view.encode(padded[None].to(self.device)).expand(c.samples, -1)
        self.plan = torch.cat([self.plan[1:], self.plan[-1:]])
        for _ in range(c.iterations):
            actions = (self.plan.unsqueeze(1) + c.noise * self._noise()).clamp(-1.0, 1.0)
            actions[:, 0] = self.plan
            returns = self._returns(start, actions)
            best = returns.topk(c.elites)
            spread = (best.values - best.values[-1]).max().clamp(min=1e-6)
            weights = torch.softmax((best.values - best.values[0]) / (c.temperature * spread), 0)
            self.plan = torch.einsum("k,hka->ha", weights, actions[:, best.indices])
        return self.plan[0, : self.action_dim].cpu().numpy()

    def _noise(self) -> Tensor:
        c = self.config
        white = torch.randn(c.horizon, c.samples, self.view.action_dim, generator=self.generator, device=self.device)
        for t in range(1, c.horizon):
            white[t] = c.correlation * white[t - 1] + (1 - c.correlation**2) ** 0.5 * white[t]
        return white

    def _returns(self, state: Tensor, actions: Tensor) -> Tensor:
        states = [state]
        for action in actions:
            states.append(self.view.advance(states[-1], action))
        rewards = self.view.reward(torch.stack(states[:-1]), actions)
        return torch.tensordot(self.config.gamma ** torch.arange(len(rewards), device=rewards.device, dtype=rewards.dtype), rewards, dims=1)


def evaluate_planner(env: Environment, view: FrozenWorldModel, *, episodes: int = 1, config: PlannerConfig | None = None) -> Evaluation:
    """Run MPPI inside the model, acting in the real task: the gate of the world model."""
    planners = [MPPI(view, env.task.action_dim, config, seed=i) for i in range(episodes)]
    return summarise(env, [record(env, p, seed=EVALUATION_SEED + i, behaviour="planner") for i, p in enumerate(planners)])
