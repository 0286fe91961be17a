"""Algorithm 1: policy extraction by first-order gradients through frozen dynamics (Eq. 6-9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pwmlib.data import SliceSampler
from pwmlib.errors import check_finite, restored_on_failure
from pwmlib.model.dynamics import Dynamics, Rollout, rollout
from pwmlib.model.frozen import FrozenWorldModel

from .actor_critic import Actor, Critics
from .config import PWMConfig
from .moments import RunningMoments
from .returns import td_lambda

__all__ = ["PolicyLearner", "StartStates", "actor_returns", "critic_targets", "extract_policy", "replay_starts"]

StartStates = Callable[[int, torch.Generator], Tensor]
"""(batch, generator) -> start states [batch, state_dim]."""


def actor_returns(roll: Rollout, value: Callable[[Tensor], Tensor], config: PWMConfig) -> Tensor:
    """Return of each imagined trajectory that the actor maximises (Eq. 6), shape [batch].

    sum_{h<H} gamma^h r_h + gamma^H V(z_H), with nothing counted after a termination; or the lambda-return of the first state.
    """
    if config.actor_objective == "td_lambda":
        next_value = value(roll.reached)
        return td_lambda(roll.rewards, next_value, gamma=config.gamma, lam=config.lam, terminated=roll.terminated)[0]
    horizon = roll.rewards.shape[0]
    weight = config.gamma ** torch.arange(horizon, device=roll.rewards.device, dtype=roll.rewards.dtype).unsqueeze(1)
    exponent = horizon + (config.terminal_discount == "gamma^(H+1)")
    terminal = config.gamma**exponent * value(roll.reached[-1])
    if roll.terminated is None:
        return (weight * roll.rewards).sum(0) + terminal
    return (weight * roll.rewards.masked_fill(~roll.happened, 0.0)).sum(0) + terminal.masked_fill(roll.terminated.any(0), 0.0)


@torch.no_grad()
def critic_targets(roll: Rollout, value: Callable[[Tensor], Tensor], config: PWMConfig) -> Tensor:
    """Targets of V(z_0) ... V(z_{H-1}), shape [horizon, batch] (Eq. 7-8); those of steps that did not happen mean nothing."""
    lam = config.lam if config.critic_target == "td_lambda" else 0.0
    return td_lambda(roll.rewards, value(roll.reached), gamma=config.gamma, lam=lam, terminated=roll.terminated)


class PolicyLearner:
    """Actor, critics and their optimisers on frozen dynamics; `update` is one iteration of Algorithm 1.

    dynamics: anything with the `Dynamics` protocol; it is used, never trained, and may be replaced between updates.
    starts: draws start states of imagined rollouts.
    All randomness comes from one generator, so that `state_dict` holds all that a bit-identical continuation needs.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        starts: StartStates,
        config: PWMConfig | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        input_dim: int | None = None,
    ):
        self.dynamics, self.starts, self.config = dynamics, starts, config or PWMConfig()
        self.device = torch.device(device)
        c = self.config
        state_dim = input_dim or dynamics.state_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            common = {"activation": c.activation, "norm": c.norm_order}
            self.actor = Actor(
                state_dim,
                dynamics.action_dim,
                hidden=c.actor_hidden,
                log_std_init=c.log_std_init,
                min_log_std=c.min_log_std,
                **common,
            ).to(self.device)
            self.critics = Critics(
                state_dim, members=c.critics, hidden=c.critic_hidden, reduction=c.critic_value, dtype=c.precision, **common
            ).to(self.device)
        self.actor_optimiser = _FlatAdam(self.actor, c.actor_lr, c.betas)
        self.critic_optimiser = _FlatAdam(self.critics, c.critic_lr, c.betas)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.step = 0
        self._ends: tuple[Tensor, Tensor] | None = None
        self.return_moments = RunningMoments()

    def update(self) -> dict[str, float]:
        """One update: imagine, improve the actor, fit the critics. Returns scalars to log; raises NonFiniteError."""
        self.actor_optimiser.check("actor")
        self.critic_optimiser.check("critics")
        with restored_on_failure(self):
            roll = self.imagine()
            metrics = self._improve_actor(roll)
            detached = roll.detach()
            metrics |= self._fit_critics(detached)
            if self.config.continued:
                self._ends = last_states(detached)
        self.step += 1
        return metrics

    def imagine(self) -> Rollout:
        """A batch of rollouts of the current policy, differentiable in the actor's parameters."""
        start, noise = self._draw()
        return rollout(self.dynamics, self.actor, start, noise=noise, detach_policy_input=self.config.detach_policy_input)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Start states [batch, state_dim] and the policy's noise [horizon, batch, action_dim] of an imagined batch."""
        c = self.config
        start = self.starts(c.batch, self.generator)
        if self._ends is not None:
            states, alive = self._ends
            goes_on = alive & (torch.rand(c.batch, generator=self.generator, device=self.device) < c.continued)
            start = torch.where(goes_on[:, None], states, start)
        return start, torch.randn(c.horizon, c.batch, self.actor.action_dim, generator=self.generator, device=self.device)

    def actor_loss(self, roll: Rollout) -> Tensor:
        """Minus the (scaled) mean return, a scalar (Eq. 6)."""
        c = self.config
        returns = actor_returns(roll, self.critics.value, c)
        if c.return_scaling == "running_std":
            self.return_moments.add(returns.detach())
            return -(returns / self.return_moments.std).mean()
        return -returns.mean() / (c.horizon if c.actor_loss_scale == "horizon" else 1)

    def critic_loss(self, states: Tensor, targets: Tensor, steps: float | None = None) -> Tensor:
        """Eq. 9 for states [n, state_dim] and targets [n] of trajectories of `steps` steps on average (default: the horizon); a scalar."""
        squared = (self.critics(states) - targets).square()
        if self.config.critic_loss == "mean":
            return squared.mean()
        return squared.sum(0).mean() * (self.config.horizon if steps is None else steps)

    def state_dict(self) -> dict[str, Any]:
        """All that continues the run bit-identically: parameters, optimisers, moments, step and random state."""
        return {
            "actor": self.actor.state_dict(),
            "critics": self.critics.state_dict(),
            "actor_optimiser": self.actor_optimiser.adam.state_dict(),
            "critic_optimiser": self.critic_optimiser.adam.state_dict(),
            "return_moments": self.return_moments.tensor,
            "generator": self.generator.get_state(),
            "step": self.step,
            **({} if self._ends is None else {"ends": list(self._ends)}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.actor.load_state_dict(state["actor"])
        self.critics.load_state_dict(state["critics"])
        self.actor_optimiser.adam.load_state_dict(state["actor_optimiser"])
        self.critic_optimiser.adam.load_state_dict(state["critic_optimiser"])
        self.critic_optimiser.refresh()
        self.return_moments.tensor = state["return_moments"].clone()
        self.generator.set_state(state["generator"].cpu())
        self._ends = tuple(x.to(self.device) for x in state["ends"]) if "ends" in state else None
        self.step = int(state["step"])

    def _improve_actor(self, roll: Rollout) -> dict[str, float]:
        c = self.config
        loss = self.actor_loss(roll)
        lr = self._learning_rate(c.actor_lr)
        norm = self.actor_optimiser.step(loss, lr=lr, max_norm=c.actor_grad_norm, update=self.step + 1, name="actor")
        self.actor.clamp_log_std_()
        return {
            "actor_loss": float(loss.detach()),
            "actor_grad_norm": norm,
            "reward": float(roll.rewards.detach()[roll.happened].mean()),
            "saturation": float((roll.actions.detach()[roll.happened].abs() > 0.97).float().mean()),
        }

    def _fit_critics(self, roll: Rollout) -> dict[str, float]:
        c = self.config
        happened = roll.happened
        targets, states = critic_targets(roll, self.critics.value, c)[happened], roll.states[:-1][happened]
        check_finite(self.step + 1, critic_targets=targets.sum())
        lr = self._learning_rate(c.critic_lr)
        losses, norm = [], 0.0
        for index in self._minibatches(len(targets)):
            loss = self.critic_loss(states[index], targets[index], len(targets) / c.batch)
            norm = self.critic_optimiser.step(loss, lr=lr, max_norm=c.critic_grad_norm, update=self.step + 1, name="critic")
            losses.append(loss.detach())
        return {"critic_loss": float(torch.stack(losses).mean()), "critic_grad_norm": norm, "value": float(targets.mean())}

    def _minibatches(self, count: int) -> Iterator[Tensor]:
        """Indices of the rows of each critic step, of `count` in the order of time; as many steps whatever `count` is."""
        c = self.config
        for _ in range(c.critic_iterations):
            if c.critic_sampling == "uniform":
                yield torch.randint(count, (max(1, count // c.critic_minibatches),), generator=self.generator, device=self.device)
            else:
                rows = torch.arange(max(count, c.critic_minibatches), device=self.device) % count
                yield from rows.tensor_split(c.critic_minibatches)

    def _learning_rate(self, start: float) -> float:
        c = self.config
        done = min(self.step / c.updates, 1.0) if c.lr_schedule == "linear" else 0.0
        return start + (c.final_lr - start) * done


def extract_policy(
    dynamics: Dynamics,
    starts: StartStates,
    config: PWMConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    callback: Callable[[PolicyLearner, dict[str, float]], None] | None = None,
) -> PolicyLearner:
    """Extract a policy from frozen dynamics in `config.updates` updates (Algorithm 1, second stage).

    Args:
        dynamics: the world, as of `Dynamics`.
        starts: draws start states of imagined rollouts.
        config: the numbers of the learner; by default Table 1's.
        seed: of initial weights and of all that is drawn.
        device: where actor and critics are.
        callback: called with the learner and its scalars after each update.

    Returns:
        The learner; `.actor` is the policy.

    Raises:
        NonFiniteError: a loss or gradient was NaN or infinite.
    """
    learner = PolicyLearner(dynamics, starts, config, seed=seed, device=device)
    while learner.step < learner.config.updates:
        metrics = learner.update()
        if callback:
            callback(learner, metrics)
    return learner


def last_states(roll: Rollout) -> tuple[Tensor, Tensor]:
    """Last states [batch, state_dim] of trajectories, and whether they go on from there [batch]."""
    return roll.states[-1], roll.happened[-1] if roll.terminated is None else ~roll.terminated.any(0)


class _FlatAdam:
    """Adam with gradient clipping on a module whose parameters become views of one vector: one fused call instead of one a tensor."""

    def __init__(self, module: torch.nn.Module, lr: float, betas: tuple[float, float]):
        self.parameters = list(module.parameters())
        flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.vector = torch.nn.Parameter(flat)
        self.vector.grad = torch.zeros_like(flat)
        sizes = [p.numel() for p in self.parameters]
        for p, part in zip(self.parameters, flat.split(sizes), strict=True):
            p.data = part.view(p.shape)
        self.gradients = [g.view(p.shape) for g, p in zip(self.vector.grad.split(sizes), self.parameters, strict=True)]
        self.adam = torch.optim.Adam([self.vector], lr=lr, betas=betas, fused=True)
        self.copies = module.net.product_copies() if isinstance(module, Critics) else {}
        self.leaves = [self.copies.get(p, p) for p in self.parameters]

    def check(self, name: str) -> None:
        """Raise ValueError where the module has been moved or cast, so that its parameters are no longer views of the vector."""
        for p in self.parameters:
            if p.untyped_storage().data_ptr() != self.vector.untyped_storage().data_ptr():
                raise ValueError(
                    f"PolicyLearner: parameters of the {name}, now {p.dtype} on {p.device}, are not those that its optimiser moves, "
                    f"{self.vector.dtype} on {self.vector.device}; cast or move a copy of the {name}, or build the learner with device="
                )

    def step(self, loss: Tensor, *, lr: float, max_norm: float, update: int, name: str) -> float:
        """Differentiate, check, clip, move. Returns the gradient norm before clipping; raises NonFiniteError before moving."""
        torch._foreach_copy_(self.gradients, torch.autograd.grad(loss, self.leaves))
        norm = float(torch.linalg.vector_norm(self.vector.grad))
        check_finite(update, **{f"{name}_loss": loss.detach(), f"{name}_gradient_norm": norm})
        if norm > max_norm:
            self.vector.grad.mul_(max_norm / (norm + 1e-6))
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.refresh()
        return norm

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the bfloat16 copies in line with the parameters; after anything that moves those."""
        for parameter, half in self.copies.items():
            half.copy_(parameter)


def replay_starts(
    view: Callable[[], FrozenWorldModel], data: SliceSampler, task_index: int, *, margin: int = 0
) -> Callable[[int, torch.Generator], Tensor]:
    """Start states z = E(s) of random replay states; the randomness comes from the learner's generator."""

    def draw(batch: int, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        obs = data.start_observations(task_index, batch, np.random.default_rng(seed), margin=margin)
        frozen = view()
        with torch.no_grad():
            return frozen.encode(obs.to(frozen.model.obs_mean.device))

    return draw
