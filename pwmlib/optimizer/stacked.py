"""Many policies at once: Algorithm 1 for several tasks and seeds on one frozen world model, in the same number of calls as for one.

The actors and critics of all policies are evaluated in batched products (`torch.func.vmap`); the world model sees one long batch. Each
policy has its own random numbers, gradient clipping and optimiser state, so the result is that of extracting them one by one. On a GPU
this is what makes 80 tasks with 10 seeds affordable; on a CPU one process a policy is about as fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils.rnn import pad_sequence

from pwmlib.errors import check_finite, restored_on_failure
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel

from .actor_critic import Actor, Critics
from .imagination import Rollout, imagine
from .pwm import PWM, PWMConfig, StartStates

__all__ = ["Member", "StackedPolicies"]


@dataclass(frozen=True)
class Member:
    """One policy of the stack."""

    task: int
    """Index of the world model's task."""
    seed: int
    starts: StartStates
    """Draws latent start states [batch, latent_dim], as for `extract_policy`."""


class StackedPolicies:
    """Many learners in one; `update` is one iteration of Algorithm 1 for each member, `actors` gives the policies."""

    def __init__(
        self, model: WorldModel, members: Sequence[Member], config: PWMConfig | None = None, *, device: str | torch.device = "cpu"
    ):
        self.config, self.members, self.device = config or PWMConfig(), list(members), torch.device(device)
        c = self.config
        if c.precision != "float32":
            raise ValueError(f"StackedPolicies: precision must be 'float32', got {c.precision!r}")
        views = [FrozenWorldModel(model, m.task, reward_symexp=c.reward_symexp) for m in self.members]
        self.learners = [PWM(view, m.starts, c, seed=m.seed, device=device) for view, m in zip(views, self.members, strict=True)]
        tasks = torch.tensor([m.task for m in self.members], device=self.device).repeat_interleave(c.batch)
        self.dynamics = FrozenWorldModel(model, tasks, reward_symexp=c.reward_symexp)
        self._actor = _Stack([learner.actor for learner in self.learners], c.actor_lr, c.betas)
        self._critics = _Stack([learner.critics for learner in self.learners], c.critic_lr, c.betas)
        self.step = 0

    @property
    def actors(self) -> list[Actor]:
        """The members' policies, with the present weights."""
        return self._actor.write_back([learner.actor for learner in self.learners])

    @property
    def critics(self) -> list[Critics]:
        """The members' critics, with the present weights."""
        return self._critics.write_back([learner.critics for learner in self.learners])

    def update(self) -> dict[str, Tensor]:
        """Update every policy; returns scalars to log, each [members], and raises NonFiniteError that names the policy."""
        with restored_on_failure(self):
            metrics = self._update()
        self.step += 1
        return metrics

    def _update(self) -> dict[str, Tensor]:
        c, lr = self.config, self.learners[0]._learning_rate
        for learner in self.learners:
            learner.step = self.step
        roll = self._imagine()
        # Each policy's loss depends on its own weights alone, so the gradient of their sum is that of each.
        losses = self._actor_losses(roll)
        norm = self._move(self._actor, losses, lr(c.actor_lr), c.actor_grad_norm, "actor")
        with torch.no_grad():
            self._actor.parameters["log_std"].clamp_(min=self.learners[0].actor.min_log_std)
        metrics = {"actor_loss": losses.detach(), "actor_grad_norm": norm}
        detached = roll.detach()
        happened = self._per_member(roll.happened).flatten(1)
        count = happened.sum(1)
        targets = self._per_member(c.targets(detached, self._value)).flatten(1)
        states = self._per_member(detached.states).flatten(1, 2)
        for index, weight in self._minibatches(happened):
            s = states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
            squared = (self._critics(s) - targets.gather(1, index)[:, None]).square()
            squared = squared.mean(1) if c.critic_loss == "mean" else squared.sum(1) * (count / c.batch)[:, None]
            losses = (squared * weight).sum(1) / weight.sum(1)
            norm = self._move(self._critics, losses, lr(c.critic_lr), c.critic_grad_norm, "critic")
        if c.continued:
            ends, alive = detached.ends
            for learner, *last in zip(self.learners, ends.split(c.batch), alive.split(c.batch), strict=True):
                learner._ends = (last[0], last[1])
        rewards = self._per_member(detached.rewards).flatten(1).masked_fill(~happened, 0.0)
        return metrics | {"critic_loss": losses.detach(), "critic_grad_norm": norm, "reward": rewards.sum(1) / count}

    def state_dict(self) -> dict[str, Any]:
        """Return all that continues bit-identically."""
        moments = [learner.return_moments.state_dict() for learner in self.learners]
        generators = [learner.generator.get_state() for learner in self.learners]
        ends = [list(learner._ends) for learner in self.learners if learner._ends is not None]
        state = {"return_moments": moments, "generators": generators, "actor": self._actor.state_dict(), "step": self.step}
        return state | {"critics": self._critics.state_dict()} | ({"ends": ends} if ends else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._actor.load_state_dict(state["actor"])
        self._critics.load_state_dict(state["critics"])
        ends = state.get("ends", [None] * len(self.learners))
        each = zip(self.learners, state["generators"], state["return_moments"], ends, strict=True)
        for learner, generator, moments, last in each:
            learner.generator.set_state(generator)
            learner.return_moments.load_state_dict(moments)
            learner._ends = None if last is None else tuple(last)
        self.step = int(state["step"])

    def _imagine(self) -> Rollout:
        n, batch = len(self.members), self.config.batch

        def policy(state: Tensor, noise: Tensor) -> Tensor:
            return self._actor(state.view(n, batch, -1), noise.view(n, batch, -1)).flatten(0, 1)

        starts, noises = zip(*(learner._draw() for learner in self.learners), strict=True)
        detached = self.config.detach_policy_input
        return imagine(self.dynamics, policy, torch.cat(starts), noise=torch.cat(noises, 1), detach_policy_input=detached)

    def _actor_losses(self, roll: Rollout) -> Tensor:
        """`PWM.actor_loss` of every member, [members]."""
        c = self.config
        returns = c.returns(roll, self._value).view(len(self.members), c.batch)
        if c.return_scaling != "running_std":
            return -returns.mean(1) / (c.horizon if c.actor_loss_scale == "horizon" else 1)
        for learner, own in zip(self.learners, returns.detach(), strict=True):
            learner.return_moments.add(own)
        return -returns.mean(1) / returns.new_tensor([float(learner.return_moments.std) for learner in self.learners])

    def _value(self, state: Tensor) -> Tensor:
        """Values of states [horizon, members * batch, latent_dim] of the long batch; [horizon, members * batch]."""
        values = self._critics(self._per_member(state))
        value = values.mean(1) if self.learners[0].critics.reduction == "mean" else values.min(1).values
        return value.transpose(0, 1).flatten(1)

    def _per_member(self, x: Tensor) -> Tensor:
        """[horizon, members * batch, ...] -> [members, horizon, batch, ...]."""
        return x.view(len(x), len(self.members), self.config.batch, *x.shape[2:]).transpose(0, 1)

    def _minibatches(self, happened: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of each critic step, [members, n] in 0 ... count - 1 of happened [members, count], and their weights: 0 fills up."""
        rows = [x.nonzero().squeeze(1) for x in happened]
        for parts in zip(*(x._minibatches(len(r)) for x, r in zip(self.learners, rows, strict=True)), strict=True):
            index = [r[part] for r, part in zip(rows, parts, strict=True)]
            yield pad_sequence(index, batch_first=True), pad_sequence([torch.ones_like(i).float() for i in index], batch_first=True)

    def _move(self, stack: _Stack, losses: Tensor, lr: float, max_norm: float, name: str) -> Tensor:
        """Clip each member's gradient and take a step; returns the norms before, [members]."""
        parameters = list(stack.parameters.values())
        gradients = torch.autograd.grad(losses.sum(), parameters)
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).square().sum(0).sqrt()
        for member, loss, norm in zip(self.members, losses.detach().tolist(), norms.tolist(), strict=True):
            label = f"task_{member.task}_seed_{member.seed}_{name}"
            check_finite(self.step + 1, **{f"{label}_loss": loss, f"{label}_gradient_norm": norm})
        scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = (g * scale.view(-1, *[1] * (g.dim() - 1))).contiguous()  # fused Adam reads memory in the parameter's order
        stack.adam.param_groups[0]["lr"] = lr
        stack.adam.step()
        return norms


class _Stack:
    """The parameters of equal modules along a leading axis, evaluated together, and Adam on them."""

    def __init__(self, modules: Sequence[nn.Module], lr: float, betas: tuple[float, float]):
        self.module = modules[0]
        self.parameters: dict[str, Tensor] = stack_module_state(list(modules))[0]
        self.adam = torch.optim.Adam(list(self.parameters.values()), lr=lr, betas=betas, fused=True)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Every member on its own part [members, ...] of the inputs."""
        return vmap(lambda parameters, *own: functional_call(self.module, parameters, own))(self.parameters, *inputs)

    @torch.no_grad()
    def write_back(self, modules: list) -> list:
        """Copy the weights into single modules."""
        for i, module in enumerate(modules):
            for name, p in module.named_parameters():
                p.copy_(self.parameters[name][i])
        return modules

    def state_dict(self) -> dict[str, Any]:
        return {"parameters": {k: p.detach() for k, p in self.parameters.items()}, "adam": self.adam.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, p in self.parameters.items():
            p.copy_(state["parameters"][name])
        self.adam.load_state_dict(state["adam"])
