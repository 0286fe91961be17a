"""Acting with TD-MPC2: MPPI in the learned model with the policy prior's samples and terminal values.

In a task it acts, as the prior alone does, through `pwmlib.optimizer.online_episodes.policy_actor`.
"""

import torch
from torch import Tensor

from pwmlib.continuation import Continued
from pwmlib.settings import Count, Positive, SettingError, settings

from .tdmpc2 import TDMPC2

__all__ = ["PlanSearch", "TDMPC2PlannerConfig"]


@settings
class TDMPC2PlannerConfig:
    """Settings of the planner, by default the published ones."""

    horizon: Count = 3
    iterations: Count = 6
    """Two more where actions have 20 entries or more."""
    samples: Count = 512
    prior_samples: Count = 24
    elites: Count = 64
    temperature: Positive = 0.5
    min_std: Positive = 0.05
    max_std: Positive = 2.0

    def __post_init__(self) -> None:
        for name, most in (("elites", "samples"), ("prior_samples", "samples"), ("min_std", "max_std")):
            if getattr(self, name) > getattr(self, most):
                raise SettingError(name, getattr(self, name), f"must be at most {most}={getattr(self, most)}")

    def searches(self, action_dim: int) -> int:
        """Return the iterations for actions of this size."""
        return self.iterations + 2 * (action_dim >= 20)


class PlanSearch(Continued):
    """MPPI from `count` states at once, each with its own plan, which goes on where the last decision's ended.

    Called with latents [count, latent_dim]; returns the first action of one elite plan, drawn by the elites' weights, and the standard
    deviation of first actions, [count, action_dim] each.
    """

    kept = ("mean", "generator")

    def __init__(self, agent: TDMPC2, task: int, count: int, discount: float, config: TDMPC2PlannerConfig | None = None, *, seed: int = 0):
        self.agent, self.count, self.discount = agent, count, discount
        self.config, self.device = config or TDMPC2PlannerConfig(), agent.model.obs_mean.device
        self.task = torch.tensor(task, device=self.device)
        self.mask = agent.model.action_mask[self.task]
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.mean = torch.zeros(self.config.horizon, count, agent.model.action_dim, device=self.device)

    def forget(self, which: Tensor) -> None:
        """Begin anew where an episode has: which [count], boolean."""
        self.mean[:, which] = 0.0

    @torch.no_grad()
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Improve the plans and return their first actions."""
        c = self.config
        prior = self._prior_plans(z.repeat_interleave(c.prior_samples, 0)).unflatten(1, (self.count, -1))
        start = z.repeat_interleave(c.samples, 0)
        mean = torch.cat([self.mean[1:], torch.zeros_like(self.mean[:1])])
        std = torch.full_like(mean, c.max_std)
        for _ in range(c.searches(mean.shape[-1])):
            shape = (c.horizon, self.count, c.samples - c.prior_samples, mean.shape[-1])
            noise = torch.randn(shape, generator=self.generator, device=self.device)
            sampled = (mean.unsqueeze(2) + std.unsqueeze(2) * noise).clamp(-1, 1)
            plans = torch.cat([prior, sampled], 2) * self.mask
            value = self._value(start, plans.flatten(1, 2)).nan_to_num(0.0).unflatten(0, (self.count, -1))
            best = value.topk(c.elites, 1)
            chosen = plans.gather(2, best.indices[None, :, :, None].expand(c.horizon, -1, -1, plans.shape[-1]))
            weight = torch.softmax(c.temperature * (best.values - best.values[:, :1]), 1)[:, :, None]
            mean = (weight * chosen).sum(2)
            variance = (weight * (chosen - mean.unsqueeze(2)).square()).sum(2)
            std = variance.sqrt().clamp(c.min_std, c.max_std) * self.mask
        self.mean = mean
        drawn = torch.multinomial(weight.squeeze(-1), 1, generator=self.generator)
        return chosen[0][torch.arange(self.count, device=self.device), drawn[:, 0]], std[0]

    def _prior_plans(self, z: Tensor) -> Tensor:
        plans = []
        for _ in range(self.config.horizon):
            noise = torch.randn(len(z), self.agent.model.action_dim, generator=self.generator, device=self.device)
            plans.append(self.agent.policy(z, self.task, noise)[0])
            z = self.agent.model.next(z, plans[-1], self.task)
        return torch.stack(plans)

    def _value(self, z: Tensor, plans: Tensor) -> Tensor:
        """Return of each plan with the value of the state that it ends in: plans [horizon, n, action_dim], result [n]."""
        total, weight = torch.zeros(len(z), device=z.device), torch.ones(len(z), device=z.device)
        for action in plans:
            total = total + weight * self.agent.model.reward(z, action, self.task, symexp=True)
            z = self.agent.model.next(z, action, self.task)
            weight = weight * self.discount * self.agent.goes_on(z, self.task)
        noise = torch.randn(len(z), self.agent.model.action_dim, generator=self.generator, device=z.device)
        action, _ = self.agent.policy(z, self.task, noise)
        pair = torch.randperm(self.agent.config.members, generator=self.generator, device=z.device)[:2]
        return total + weight * self.agent.value(z, action, self.task, pair)
