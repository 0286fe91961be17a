"""Algorithm 1: policy extraction by first-order gradients through frozen dynamics (Eq. 6-9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .config import PWMConfig
from .dynamics import Dynamics, Rollout, rollout
from .errors import ExplainedError
from .moments import RunningMoments
from .policy import Actor, Critics
from .returns import td_lambda
from .runs import Run, train

__all__ = ["NonFiniteError", "PolicyLearner", "StartStates", "actor_returns", "critic_targets", "extract_policy"]

StartStates = Callable[[int, torch.Generator], Tensor]
"""(batch, generator) -> start states [batch, state_dim]."""


class NonFiniteError(ExplainedError):
    """A loss or gradient was NaN or infinite; the learner's state is still the last good one."""


def check_finite(step: int, **terms: Tensor | float) -> None:
    """Raise NonFiniteError naming the first term that is not finite."""
    for name, value in terms.items():
        number = float(value.detach() if isinstance(value, Tensor) else value)
        if not (number - number == 0.0):
            raise NonFiniteError(f"update {step}: the {name.replace('_', ' ')} is {number}; the learner is back in the state before it")


def actor_returns(roll: Rollout, value: Callable[[Tensor], Tensor], config: PWMConfig) -> Tensor:
    """Return of each imagined trajectory that the actor maximises (Eq. 6), shape [batch].

    sum_{h<H} gamma^h r_h + gamma^H V(z_H), with nothing counted after a termination; or the lambda-return of the first state.
    """
    if config.actor_objective == "td_lambda":
        next_value = value(roll.states[1:])
        return td_lambda(roll.rewards, next_value, gamma=config.gamma, lam=config.lam, terminated=roll.terminated)[0]
    horizon = roll.rewards.shape[0]
    weight = config.gamma ** torch.arange(horizon, device=roll.rewards.device, dtype=roll.rewards.dtype).unsqueeze(1)
    exponent = horizon + (config.terminal_discount == "gamma^(H+1)")
    terminal = config.gamma**exponent * value(roll.states[-1])
    if roll.terminated is None:
        return (weight * roll.rewards).sum(0) + terminal
    alive = torch.cumprod((~roll.terminated).to(roll.rewards.dtype), 0)
    before = torch.cat([torch.ones_like(alive[:1]), alive[:-1]])
    return (weight * roll.rewards * before).sum(0) + terminal * alive[-1]


@torch.no_grad()
def critic_targets(roll: Rollout, value: Callable[[Tensor], Tensor], config: PWMConfig) -> Tensor:
    """Targets of V(z_0) ... V(z_{H-1}), shape [horizon, batch] (Eq. 7-8)."""
    lam = config.lam if config.critic_target == "td_lambda" else 0.0
    return td_lambda(roll.rewards, value(roll.states[1:]), gamma=config.gamma, lam=lam, terminated=roll.terminated)


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
        self._snapshot = _Snapshot()
        self.return_moments = RunningMoments()

    def update(self) -> dict[str, float]:
        """One update: imagine, improve the actor, fit the critics. Returns scalars to log; raises NonFiniteError."""
        self._snapshot.take(self)
        try:
            roll = self.imagine()
            metrics = self._improve_actor(roll)
            detached = Rollout(roll.states.detach(), roll.actions.detach(), roll.rewards.detach(), roll.terminated)
            metrics |= self._fit_critics(detached)
            if self.config.continued:
                self._ends = self._reached(detached)
        except NonFiniteError:
            self._snapshot.restore(self)
            raise
        self.step += 1
        return metrics

    def imagine(self) -> Rollout:
        """A batch of rollouts of the current policy, differentiable in the actor's parameters."""
        c = self.config
        start = self.starts(c.batch, self.generator)
        if self._ends is not None:
            states, alive = self._ends
            goes_on = alive & (torch.rand(c.batch, generator=self.generator, device=self.device) < c.continued)
            start = torch.where(goes_on[:, None], states, start)
        noise = torch.randn(c.horizon, c.batch, self.actor.action_dim, generator=self.generator, device=self.device)
        return rollout(self.dynamics, self.actor, start, noise=noise, detach_policy_input=c.detach_policy_input)

    @staticmethod
    def _reached(roll: Rollout) -> tuple[Tensor, Tensor]:
        """Last states [batch, state_dim] of trajectories, and whether they go on from there [batch]."""
        ended = torch.zeros_like(roll.rewards[0], dtype=torch.bool) if roll.terminated is None else roll.terminated.any(0)
        return roll.states[-1], ~ended

    def actor_loss(self, roll: Rollout) -> Tensor:
        """Minus the (scaled) mean return, a scalar (Eq. 6)."""
        c = self.config
        returns = actor_returns(roll, self.critics.value, c)
        if c.return_scaling == "running_std":
            self.return_moments.add(returns.detach())
            return -(returns / self.return_moments.std).mean()
        return -returns.mean() / (c.horizon if c.actor_loss_scale == "horizon" else 1)

    def critic_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Eq. 9 for states [n, state_dim] and targets [n]; a scalar."""
        squared = (self.critics(states) - targets).square()
        return squared.mean() if self.config.critic_loss == "mean" else squared.sum(0).mean() * self.config.horizon

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
            "reward": float(roll.rewards.detach().mean()),
            "saturation": float((roll.actions.detach().abs() > 0.97).float().mean()),
        }

    def _fit_critics(self, roll: Rollout) -> dict[str, float]:
        c = self.config
        targets = critic_targets(roll, self.critics.value, c).flatten()
        states = roll.states[:-1].flatten(0, 1)
        check_finite(self.step + 1, critic_targets=targets.sum())
        lr = self._learning_rate(c.critic_lr)
        losses, norm = [], 0.0
        for index in self._minibatches(len(targets)):
            loss = self.critic_loss(states[index], targets[index])
            norm = self.critic_optimiser.step(loss, lr=lr, max_norm=c.critic_grad_norm, update=self.step + 1, name="critic")
            losses.append(loss.detach())
        return {"critic_loss": float(torch.stack(losses).mean()), "critic_grad_norm": norm, "value": float(targets.mean())}

    def _minibatches(self, count: int) -> Iterable[Tensor | slice]:
        c = self.config
        size = max(1, count // c.critic_minibatches)
        for _ in range(c.critic_iterations):
            if c.critic_sampling == "uniform":
                yield torch.randint(count, (size,), generator=self.generator, device=self.device)
            else:
                yield from (slice(i * size, (i + 1) * size) for i in range(c.critic_minibatches))

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
    run: Run | None = None,
    evaluate: Callable[[PolicyLearner], dict[str, Any]] | None = None,
    evaluate_every: int = 0,
    checkpoint_every: int = 100,
) -> PolicyLearner:
    """Algorithm 1, second stage: a policy from frozen dynamics, in `config.updates` updates. Returns the learner (`.actor`).

    With a `run`, progress is saved in its folder and an interrupted call continues there. evaluate(learner) gives extra columns of
    the run's metrics every `evaluate_every` updates.
    """
    learner = PolicyLearner(dynamics, starts, config, seed=seed, device=device)
    evaluation = (lambda step: evaluate(learner)) if evaluate else None
    train(run, learner, learner.config.updates, checkpoint_every=checkpoint_every, evaluate=evaluation, evaluate_every=evaluate_every)
    return learner


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
        for parameter, copy in self.copies.items():
            copy.copy_(parameter)

    def tensors(self) -> list[Tensor]:
        """Everything that a step changes."""
        return [self.vector.detach(), *(v for v in self.adam.state.get(self.vector, {}).values() if isinstance(v, Tensor))]


class _Snapshot:
    """The learner's state before an update, kept in buffers that are allocated once."""

    def __init__(self):
        self._buffers: list[Tensor] = []

    def take(self, learner: PolicyLearner) -> None:
        live = self._live(learner)
        if len(live) != len(self._buffers):
            self._buffers = [t.clone() for t in live]
        else:
            torch._foreach_copy_(self._buffers, live)
        self._random, self._moments = learner.generator.get_state(), learner.return_moments.tensor

    def restore(self, learner: PolicyLearner) -> None:
        for optimiser in (learner.actor_optimiser, learner.critic_optimiser):
            if len(self._buffers) == 2:
                optimiser.adam.state.clear()  # the failed update was the first one: there was no optimiser state before it
        for tensor, buffer in zip(self._live(learner), self._buffers, strict=True):
            tensor.copy_(buffer)
        learner.critic_optimiser.refresh()
        learner.generator.set_state(self._random)
        learner.return_moments.tensor = self._moments

    @staticmethod
    def _live(learner: PolicyLearner) -> list[Tensor]:
        return learner.actor_optimiser.tensors() + learner.critic_optimiser.tensors()
