"""SHAC, short-horizon actor-critic (Xu et al. 2022): first-order policy gradients through a differentiable simulator.

Per update: H steps in all environments; the actor follows the gradient of the discounted rewards plus the value after the last step,
taken through the simulator; the critic learns TD(lambda) targets by mini-batches. Episodes go on from update to update, the graph is cut
in between. Values are bootstrapped where an episode is truncated, and are zero where it terminates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pwmlib.errors import check_finite, restored_on_failure
from pwmlib.model.dynamics import valued_states
from pwmlib.settings import Beta, Count, Fraction, NonNegative, Positive, Real, settings
from pwmlib.sim.env import DifferentiableEnv

from .actor_critic import Actor, Critics
from .moments import RunningMoments
from .returns import td_lambda

__all__ = ["SHAC", "NormalisedActor", "SHACConfig", "evaluate_policy"]


@settings
class SHACConfig:
    """Numbers of SHAC; all learning rates fall linearly to `final_lr` over `updates`."""

    updates: Count = 2000
    horizon: Count = 32
    gamma: Fraction = 0.99
    lam: Fraction = 0.95
    actor_hidden: tuple[Count, ...] = (400, 200, 100)
    critic_hidden: tuple[Count, ...] = (400, 200)
    actor_lr: Positive = 2e-3
    critic_lr: Positive = 5e-4
    final_lr: NonNegative = 1e-5
    betas: tuple[Beta, Beta] = (0.7, 0.95)
    grad_norm: Positive = 1.0
    critic_iterations: Count = 4
    critic_minibatches: Count = 4
    target_kept: Fraction = 0.2
    """Share of the old target critic that stays after an update."""
    log_std_init: Real = -1.0
    critics: Count = 1
    critic_value: Literal["mean", "min"] = "mean"
    """How several critics give one value."""
    critic_grad_norm: Positive = 1.0
    actor_objective: Literal["n_step", "td_lambda"] = "n_step"
    """What the actor maximises: rewards and the last value, or the lambda-return of each environment's first state (Fig. 19)."""
    terminal_discount: Literal["gamma^H", "gamma^(H+1)"] = "gamma^H"
    """Weight of the value after the window; the released PWM advances gamma once too often."""
    detach_policy_input: bool = False
    """The policy sees sg(s): da/ds drops out of the gradient (released PWM)."""
    return_scaling: Literal["none", "running_std"] = "none"
    """What the actor's loss is divided by: the horizon, or a cumulative running standard deviation of the returns (released PWM)."""
    normalise_obs: bool = True
    """Running statistics of what the policy and the critics see."""
    reward_scale: Positive = 1.0
    """Multiplies the rewards that are learned from, so that values are of order 1 to 100. Reported returns are unscaled."""


class NormalisedActor(nn.Module):
    """An `Actor` that reads observations normalised by running statistics; same calls and attributes as `Actor`."""

    def __init__(self, obs_dim: int, action_dim: int, *, hidden: tuple[int, ...], log_std_init: float = -1.0):
        super().__init__()
        self.actor = Actor(obs_dim, action_dim, hidden=hidden, log_std_init=log_std_init)
        self.register_buffer("obs_mean", torch.zeros(obs_dim))
        self.register_buffer("obs_var", torch.ones(obs_dim))
        self.register_buffer("obs_count", torch.tensor(1e-4))

    @property
    def std(self) -> Tensor:
        """Standard deviation before tanh, shape [action_dim]."""
        return self.actor.std

    def normalise(self, obs: Tensor) -> Tensor:
        """Observations with mean 0 and variance 1 over what was seen."""
        return (obs - self.obs_mean) / (self.obs_var + 1e-5).sqrt()

    def mean(self, obs: Tensor) -> Tensor:
        """Mean action before tanh."""
        return self.actor.mean(self.normalise(obs))

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.actor(self.normalise(obs), noise)

    @torch.no_grad()
    def watch(self, obs: Tensor) -> None:
        """Fold a batch of observations [N, obs_dim] into the statistics."""
        count, mean, var = float(len(obs)), obs.mean(0), obs.var(0, unbiased=False)
        total, shift = self.obs_count + count, mean - self.obs_mean
        self.obs_var.copy_((self.obs_var * self.obs_count + var * count + shift.square() * self.obs_count * count / total) / total)
        self.obs_mean.add_(shift * count / total)
        self.obs_count.copy_(total)


class SHAC:
    """The learner; `update` is one policy update and its critic fits. `state_dict` continues it bit-identically.

    record: called with (obs [H, E, n], action [H, E, m], reward [H, E], final_obs [H, E, n], terminated [H, E], truncated [H, E]) of
    each update, e.g. to keep the replay.
    """

    def __init__(
        self, env: DifferentiableEnv, config: SHACConfig | None = None, *, seed: int = 0, spread: bool = True,
        record: Callable[..., None] | None = None,
    ):  # fmt: skip
        self.env, self.config, self.record, self.step = env, config or SHACConfig(), record, 0
        c, device = self.config, env.simulator.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = NormalisedActor(env.obs_dim, env.action_dim, hidden=c.actor_hidden, log_std_init=c.log_std_init).to(device)
            common = {"members": c.critics, "hidden": c.critic_hidden, "reduction": c.critic_value}
            self.critic = Critics(env.obs_dim, **common).to(device)
            self.target = Critics(env.obs_dim, **common).to(device)
        self.target.load_state_dict(self.critic.state_dict())
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=c.actor_lr, betas=c.betas)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=c.critic_lr, betas=c.betas)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.return_moments = RunningMoments()
        env.reset(seed=seed, spread=spread)

    def update(self) -> dict[str, float]:
        """One update. Returns scalars to log; raises NonFiniteError, then the environments are back too and `record` was not called."""
        c = self.config
        with restored_on_failure(self):
            self._set_learning_rates()
            loss, seen = self._actor_loss()
            gradients = torch.autograd.grad(loss, list(self.actor.parameters()))
            norm = torch.nn.utils.get_total_norm(gradients)
            check_finite(self.step + 1, actor_loss=loss, actor_gradient_norm=norm)
            for p, g in zip(self.actor.parameters(), gradients, strict=True):
                p.grad = g
            nn.utils.clip_grads_with_norm_(self.actor.parameters(), c.grad_norm, norm)
            self.actor_optimiser.step()
            self.actor.actor.clamp_log_std_()
            critic_loss = self._fit_critic(seen)
        if c.normalise_obs:
            self.actor.watch(seen["obs"].flatten(0, 1))
        if self.record is not None:
            flags = (seen["terminated"], seen["truncated"])
            self.record(seen["obs"], seen["action"], seen["reward"] / c.reward_scale, seen["final_obs"], *flags)
        self.step += 1
        reward = float(seen["reward"].mean()) / c.reward_scale
        return {"actor_loss": float(loss.detach()), "critic_loss": critic_loss, "grad_norm": float(norm), "reward": reward}

    def _set_learning_rates(self) -> None:
        c, done = self.config, min(1.0, self.step / self.config.updates)
        for optimiser, lr in ((self.actor_optimiser, c.actor_lr), (self.critic_optimiser, c.critic_lr)):
            optimiser.param_groups[0]["lr"] = lr + (c.final_lr - lr) * done

    def _actor_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        c, env = self.config, self.env
        obs = env.detach()
        noise = torch.randn(c.horizon, env.count, env.action_dim, generator=self.generator, device=obs.device)
        discount, total = torch.ones(env.count, device=obs.device), torch.zeros(env.count, device=obs.device)
        names = ("obs", "action", "reward", "next_value", "final_obs", "terminated", "truncated")
        kept: dict[str, list[Tensor]] = {name: [] for name in names}
        path: list[tuple[Tensor, Tensor]] = []
        for t in range(c.horizon):
            action = self.actor(obs.detach() if c.detach_policy_input else obs, noise[t])
            step = env.step(action)
            value = self.target.value(self.actor.normalise(valued_states(step.final_obs, step.terminated)))
            bootstrap = ~step.terminated if t == c.horizon - 1 else step.truncated
            reward = c.reward_scale * step.reward
            path.append((reward, value))
            beyond = c.gamma * value
            if t == c.horizon - 1 and c.terminal_discount == "gamma^(H+1)":
                beyond = c.gamma * beyond
            total = total + discount * (reward + torch.where(bootstrap, beyond, 0.0))
            discount = torch.where(step.terminated | step.truncated, 1.0, discount * c.gamma)
            row = (obs, action, reward, value, step.final_obs, step.terminated, step.truncated)
            for name, x in zip(names, row, strict=True):
                kept[name].append(x.detach())
            obs = step.obs
        seen = {name: torch.stack(x) for name, x in kept.items()}
        if c.actor_objective == "td_lambda":
            rewards, values = (torch.stack(x) for x in zip(*path, strict=True))
            flags = {name: seen[name] for name in ("terminated", "truncated")}
            total = td_lambda(rewards, values, gamma=c.gamma, lam=c.lam, **flags)[0]
        if c.return_scaling == "running_std":
            self.return_moments.add(total.detach())
            return -total.mean() / self.return_moments.std, seen
        return -total.mean() / c.horizon, seen

    def _fit_critic(self, seen: dict[str, Tensor]) -> float:
        c = self.config
        flags = {name: seen[name] for name in ("terminated", "truncated")}
        targets = td_lambda(seen["reward"], seen["next_value"], gamma=c.gamma, lam=c.lam, **flags).flatten()
        obs = self.actor.normalise(seen["obs"]).flatten(0, 1)
        loss = torch.zeros(())
        for _ in range(c.critic_iterations):
            order = torch.randperm(len(obs), generator=self.generator, device=obs.device)
            for part in order.chunk(c.critic_minibatches):
                self.critic_optimiser.zero_grad()
                loss = (self.critic(obs[part]) - targets[part]).square().mean()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(self.critic.parameters(), c.critic_grad_norm)
                check_finite(self.step + 1, critic_loss=loss, critic_gradient_norm=norm)
                self.critic_optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, 1 - c.target_kept)
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, the environments included."""
        parts = ("actor", "critic", "target", "actor_optimiser", "critic_optimiser")
        own = {"generator": self.generator.get_state(), "step": self.step, "config": str(asdict(self.config))}
        own["return_moments"] = self.return_moments.tensor
        return {**{name: getattr(self, name).state_dict() for name in parts}, "env": self.env.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("actor", "critic", "target", "actor_optimiser", "critic_optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.env.load_state_dict(state["env"])
        self.generator.set_state(state["generator"])
        self.return_moments.tensor = state["return_moments"].clone()
        self.step = int(state["step"])


@torch.no_grad()
def evaluate_policy(
    policy: Callable[[Tensor, None], Tensor], name: object, *, episodes: int = 64, seed: int = 10_000, stiffness: float = 1.0,
    device: str | torch.device | None = None,
) -> Tensor:  # fmt: skip
    """Undiscounted returns of deterministic episodes in other environments than those of training, [episodes].

    name: an environment's name or `EnvSpec`. stiffness: of the contacts, as the policy was trained with. device: where the policy is.
    """
    env = DifferentiableEnv(name, episodes, seed=seed, stiffness=stiffness, device=device)
    obs, running, total = env.reset(), torch.ones(episodes, dtype=torch.bool), torch.zeros(episodes)
    for _ in range(env.spec.episode_length):
        step = env.step(policy(obs, None))
        total += step.reward.cpu().where(running, 0.0)
        running &= ~(step.terminated | step.truncated).cpu()
        obs = step.obs
    return total
