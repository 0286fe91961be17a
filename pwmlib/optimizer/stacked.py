"""Many policies at once: Algorithm 1 for several tasks and seeds on one frozen world model, in the same number of calls as for one.

Actors and critics of all policies are stacked along a leading axis and evaluated in batched products; the world model sees one long
batch. Each policy has its own random numbers, gradient clipping and optimiser state, so the result is that of extracting them one by
one. On a GPU this is what makes 80 tasks with 10 seeds affordable; on a CPU one process a policy is about as fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pwmlib.errors import check_finite, restored_on_failure
from pwmlib.model.dynamics import Rollout, rollout
from pwmlib.model.frozen import FrozenMultiTaskModel, FrozenWorldModel
from pwmlib.model.layers import norm_and_activation
from pwmlib.model.world_model import WorldModel

from .actor_critic import Actor, Critics
from .config import PWMConfig
from .pwm import PolicyLearner, StartStates, actor_returns, critic_targets, last_states

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
    """`PolicyLearner`s of all members in one; `update` is one iteration of Algorithm 1 for each. `actors` gives the policies."""

    def __init__(
        self, model: WorldModel, members: Sequence[Member], config: PWMConfig | None = None, *, device: str | torch.device = "cpu"
    ):
        self.config, self.members, self.device = config or PWMConfig(), list(members), torch.device(device)
        c = self.config
        if c.precision != "float32":
            raise ValueError(f"StackedPolicies: precision must be 'float32', got {c.precision!r}")
        self.model = model
        views = [FrozenWorldModel(model, m.task, reward_symexp=c.reward_symexp) for m in self.members]
        self.learners = [PolicyLearner(view, m.starts, c, seed=m.seed, device=device) for view, m in zip(views, self.members, strict=True)]
        self.dynamics = FrozenMultiTaskModel(model, reward_symexp=c.reward_symexp)
        tasks = torch.tensor([m.task for m in self.members], device=self.device)
        with torch.no_grad():
            mask = model.action_mask[tasks] if model.config.apply_action_mask else torch.ones_like(model.action_mask[tasks])
            fixed = torch.cat([model.task_embedding(tasks), mask], -1)
        self._fixed = fixed.repeat_interleave(c.batch, 0)
        self._actor = _Stack([learner.actor for learner in self.learners], c.actor_lr, c.betas)
        self._critics = _Stack([learner.critics for learner in self.learners], c.critic_lr, c.betas)
        self.step = 0

    @property
    def actors(self) -> list[Actor]:
        """The policy of each member, with the present weights."""
        self._actor.write_back([learner.actor for learner in self.learners])
        return [learner.actor for learner in self.learners]

    @property
    def critics(self) -> list[Critics]:
        """The critics of each member, with the present weights."""
        self._critics.write_back([learner.critics for learner in self.learners])
        return [learner.critics for learner in self.learners]

    def update(self) -> dict[str, Tensor]:
        """One update of every policy. Returns scalars to log, each [members]; raises NonFiniteError that names the policy."""
        with restored_on_failure(self):
            metrics = self._update()
        self.step += 1
        return metrics

    def _update(self) -> dict[str, Tensor]:
        c, lr = self.config, self.learners[0]._learning_rate
        for learner in self.learners:
            learner.step = self.step
        roll = self._imagine()
        loss = self._actor_losses(self._per_member(actor_returns(roll, self._value, c)))
        metrics = {
            "actor_loss": loss.detach(),
            "actor_grad_norm": self._move(self._actor, loss, lr(c.actor_lr), c.actor_grad_norm, "actor"),
        }
        with torch.no_grad():
            self._actor.parameters["log_std"].clamp_(min=self.learners[0].actor.min_log_std)
        detached, latent = roll.detach(), self.model.latent_dim
        happened = self._per_member(roll.happened).flatten(1)
        count = happened.sum(1)
        targets = self._per_member(critic_targets(detached, self._value, c)).flatten(1)
        states = self._per_member(detached.states[:-1][..., :latent]).flatten(1, 2)
        for index, weight in self._minibatches(happened):
            s = states.gather(1, index[..., None].expand(-1, -1, latent))
            squared = (self._values(s) - targets.gather(1, index)[:, None]).square()
            squared = squared.mean(1) if c.critic_loss == "mean" else squared.sum(1) * (count / c.batch)[:, None]
            critic = (squared * weight).sum(1) / weight.sum(1)
            norm = self._move(self._critics, critic, lr(c.critic_lr), c.critic_grad_norm, "critic")
        if c.continued:
            ends, alive = last_states(detached)
            parts = zip(self.learners, self._per_member(ends[None, :, :latent])[:, 0], self._per_member(alive), strict=True)
            for learner, *last in parts:
                learner._ends = tuple(last)
        rewards = self._per_member(detached.rewards).flatten(1).masked_fill(~happened, 0.0)
        return metrics | {"critic_loss": critic.detach(), "critic_grad_norm": norm, "reward": rewards.sum(1) / count}

    def state_dict(self) -> dict[str, Any]:
        """All that continues bit-identically."""
        return {
            "return_moments": [learner.return_moments.tensor for learner in self.learners],
            "actor": self._actor.state_dict(),
            "critics": self._critics.state_dict(),
            "generators": [learner.generator.get_state() for learner in self.learners],
            "step": self.step,
            **({} if self.learners[0]._ends is None else {"ends": [list(learner._ends) for learner in self.learners]}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for learner, moments in zip(self.learners, state.get("return_moments", ()), strict=False):
            learner.return_moments.tensor = moments.clone()
        self._actor.load_state_dict(state["actor"])
        self._critics.load_state_dict(state["critics"])
        ends = state.get("ends", [None] * len(self.learners))
        for learner, generator, last in zip(self.learners, state["generators"], ends, strict=True):
            learner.generator.set_state(generator)
            learner._ends = None if last is None else tuple(last)
        self.step = int(state["step"])

    def _actor_losses(self, returns: Tensor) -> Tensor:
        """`PolicyLearner.actor_loss` of every member from its returns [members, batch]; [members]."""
        c = self.config
        if c.return_scaling != "running_std":
            return -returns.mean(1) / (c.horizon if c.actor_loss_scale == "horizon" else 1)
        for learner, own in zip(self.learners, returns.detach().cpu(), strict=True):
            learner.return_moments.add(own)
        return -returns.mean(1) / returns.new_tensor([learner.return_moments.std for learner in self.learners])

    def _imagine(self) -> Rollout:
        c, n, latent = self.config, len(self.members), self.model.latent_dim

        def policy(state: Tensor, noise: Tensor) -> Tensor:
            mean = self._actor.mlp("mean", state[:, :latent].view(n, c.batch, latent), c)
            std = self._actor.parameters["log_std"].clamp(min=self.learners[0].actor.min_log_std).exp()
            return torch.tanh(mean + std[:, None] * noise.view_as(mean)).flatten(0, 1)

        starts, noises = zip(*(learner._draw() for learner in self.learners), strict=True)
        start = torch.cat([torch.cat(starts), self._fixed], -1)
        return rollout(self.dynamics, policy, start, noise=torch.cat(noises, 1), detach_policy_input=c.detach_policy_input)

    def _value(self, state: Tensor) -> Tensor:
        """Values of states [..., members * batch, state_dim] of the stacked dynamics; [..., members * batch]."""
        n, latent, c = len(self.members), self.model.latent_dim, self.config
        lead = state.shape[:-2]
        z = state[..., :latent].reshape(-1, n, c.batch, latent).transpose(0, 1).flatten(1, 2)
        values = self._values(z)
        value = values.mean(1) if self.learners[0].critics.reduction == "mean" else values.min(1).values
        return value.view(n, -1, c.batch).transpose(0, 1).reshape(*lead, n * c.batch)

    def _values(self, z: Tensor) -> Tensor:
        """All critics: z [members, n, latent] -> [members, critics, n]."""
        return self._critics.ensemble(z, self.config)

    def _per_member(self, x: Tensor) -> Tensor:
        """[..., members * batch, (width)] -> [members, ..., batch, (width)]; one leading dimension at most."""
        n, c = len(self.members), self.config
        if x.dim() == 1:
            return x.view(n, c.batch)
        return x.view(len(x), n, c.batch, *x.shape[2:]).transpose(0, 1)

    def _minibatches(self, happened: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of each critic step, [members, n] in 0 ... count - 1 of happened [members, count], and their weights: 0 fills up."""
        rows = [x.nonzero().squeeze(1) for x in happened]
        for parts in zip(*(x._minibatches(len(r)) for x, r in zip(self.learners, rows, strict=True)), strict=True):
            index = [r[part] for r, part in zip(rows, parts, strict=True)]
            yield pad_sequence(index, batch_first=True), pad_sequence([torch.ones_like(i).float() for i in index], batch_first=True)

    def _move(self, stack: _Stack, losses: Tensor, lr: float, max_norm: float, name: str) -> Tensor:
        norms = stack.differentiate(losses)
        for member, loss, norm in zip(self.members, losses.detach().tolist(), norms.tolist(), strict=True):
            label = f"task_{member.task}_seed_{member.seed}_{name}"
            check_finite(self.step + 1, **{f"{label}_loss": loss, f"{label}_gradient_norm": norm})
        stack.move(lr, max_norm)
        return norms


class _Stack:
    """The parameters of equal modules as views of one matrix [members, parameters], and Adam on it."""

    def __init__(self, modules: Sequence[torch.nn.Module], lr: float, betas: tuple[float, float]):
        self.names = [name for name, _ in modules[0].named_parameters()]
        shapes = [p.shape for p in modules[0].parameters()]
        self.matrix = torch.nn.Parameter(torch.stack([torch.cat([p.detach().flatten() for p in m.parameters()]) for m in modules]))
        self.matrix.grad = torch.zeros_like(self.matrix)
        sizes = [shape.numel() for shape in shapes]
        parts = self.matrix.detach().split(sizes, 1)
        gradients = self.matrix.grad.split(sizes, 1)
        self.parameters = {
            name: part.view(len(modules), *shape).requires_grad_() for name, part, shape in zip(self.names, parts, shapes, strict=True)
        }
        self._gradients = [g.view(len(modules), *shape) for g, shape in zip(gradients, shapes, strict=True)]
        self.adam = torch.optim.Adam([self.matrix], lr=lr, betas=betas, fused=True)

    def differentiate(self, losses: Tensor) -> Tensor:
        """Gradients of every member's loss; returns their norms [members]."""
        torch._foreach_copy_(self._gradients, torch.autograd.grad(losses.sum(), list(self.parameters.values())))
        return torch.linalg.vector_norm(self.matrix.grad, dim=1)

    def move(self, lr: float, max_norm: float) -> None:
        """Clip each member's gradient and take a step."""
        norms = torch.linalg.vector_norm(self.matrix.grad, dim=1, keepdim=True)
        self.matrix.grad.mul_(torch.where(norms > max_norm, max_norm / (norms + 1e-6), torch.ones_like(norms)))
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()

    def mlp(self, prefix: str, x: Tensor, config: PWMConfig) -> Tensor:
        """The members' MLPs called `prefix` on x [members, n, in]."""
        p, layer = self.parameters, 0
        while f"{prefix}.{layer}.weight" in p:
            name = f"{prefix}.{layer}"
            x = torch.baddbmm(p[f"{name}.bias"][:, None], x, p[f"{name}.weight"].transpose(1, 2))
            if f"{prefix}.{layer + 1}.weight" in p:
                norm = [p[f"{name}.ln.{x}"][:, None] if config.norm_order != "none" else None for x in ("weight", "bias")]
                x = norm_and_activation(x, *norm, config.activation, config.norm_order)
            layer += 1
        return x

    def ensemble(self, x: Tensor, config: PWMConfig) -> Tensor:
        """The members' critic ensembles on x [members, n, in]; [members, critics, n]."""
        p, layer = self.parameters, 0
        members, critics = p["net.weights.0"].shape[:2]
        h = x.unsqueeze(1).expand(-1, critics, -1, -1).flatten(0, 1)
        while f"net.weights.{layer}" in p:
            h = torch.baddbmm(p[f"net.biases.{layer}"].flatten(0, 1), h, p[f"net.weights.{layer}"].flatten(0, 1))
            if f"net.weights.{layer + 1}" in p:
                names = (f"net.ln_weights.{layer}", f"net.ln_biases.{layer}")
                norm = [p[name].flatten(0, 1) if config.norm_order != "none" else None for name in names]
                h = norm_and_activation(h, *norm, config.activation, config.norm_order)
            layer += 1
        return h.view(members, critics, -1)

    @torch.no_grad()
    def write_back(self, modules: Sequence[torch.nn.Module]) -> None:
        """Copy the weights into single modules."""
        for i, module in enumerate(modules):
            for name, p in module.named_parameters():
                p.copy_(self.parameters[name][i])

    def state_dict(self) -> dict[str, Any]:
        return {"matrix": self.matrix.detach(), "adam": self.adam.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.matrix.copy_(state["matrix"])
        self.adam.load_state_dict(state["adam"])
