"""A trained world model as a differentiable simulator: frozen weights, gradients to states and actions only (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import norm_and_activation, training_mode
from .world_model import WorldModel

__all__ = ["FrozenMultiTaskModel", "FrozenWorldModel", "Precision"]

Precision = Literal["float32", "bfloat16"]


class _FrozenMLP:
    """An `mlp` with fixed weights; the columns of fixed inputs (the task embedding) are folded into the first bias."""

    def __init__(self, net: nn.Sequential, columns: Sequence[slice], embedding: Tensor | None, at: slice | None, dtype: torch.dtype):
        self.blocks = list(net)
        self.dtype = dtype
        with training_mode(net, False):  # reading a weight must not take a power iteration of its spectral norm
            first, *others = (b.weight.detach() for b in self.blocks)
        bias = net[0].bias.detach()
        if embedding is not None:
            bias = bias + F.linear(embedding, first[:, at])
        self.first = [first[:, c].to(dtype).contiguous() for c in columns]
        self.weights = [w.to(dtype) for w in others]
        self.norms = [(b.ln.weight.detach(), b.ln.bias.detach()) if b.ln is not None else None for b in self.blocks]
        self.biases = [bias.to(dtype), *(b.bias.detach().to(dtype) for b in self.blocks[1:])]

    def __call__(self, *inputs: Tensor) -> Tensor:
        h: Tensor | None = None
        lead = inputs[0].shape[:-1]
        for i, block in enumerate(self.blocks):
            if i == 0:
                h = self.biases[0]
                for x, w in zip(inputs, self.first, strict=True):
                    h = torch.addmm(h, x.reshape(-1, x.shape[-1]).to(self.dtype), w.t())
            else:
                h = F.linear(h.to(self.dtype), self.weights[i - 1], self.biases[i])
            if self.norms[i] is not None:
                h = norm_and_activation(h, *self.norms[i], block.activation, block.norm)
            else:
                h = block.finish(h)
        # Results leave in float32: a latent is the next step's state, and a logit the softmax's argument.
        return (h.float() if self.dtype == torch.bfloat16 else h).view(*lead, h.shape[-1])


class FrozenWorldModel:
    """A world model as the differentiable simulator of one task: the `Dynamics` protocol over latent states.

    Gradients flow to states and actions only: no weight gradient is computed or stored. The task's embedding is folded into the
    first bias of each network. With precision="bfloat16" matrix products run in bfloat16, the rest in float32.
    The weights are copied at construction when they must be cast or sliced; build it anew after the model was trained further.
    """

    def __init__(self, model: WorldModel, task: int = 0, *, precision: Precision = "float32", reward_symexp: bool = False):
        if not 0 <= task < model.tasks:
            raise ValueError(f"FrozenWorldModel: task must be in 0..{model.tasks - 1}, got {task}")
        self.model, self.task, self.reward_symexp = model, task, reward_symexp
        self.state_dim, self.action_dim, self.obs_dim = model.latent_dim, model.action_dim, model.obs_dim
        device = model.obs_mean.device
        dtype = torch.bfloat16 if precision == "bfloat16" else model.obs_mean.dtype
        e = model.config.task_dim
        index = torch.tensor(task, device=device)
        with torch.no_grad():
            embedding = model.task_embedding(index) if e else None
        z, a = model.latent_dim, model.action_dim
        step = ([slice(0, z), slice(z + e, z + e + a)], embedding, slice(z, z + e), dtype)
        self._encoder = None
        if model.encoder is not None:
            o = model.obs_dim
            self._encoder = _FrozenMLP(model.encoder, [slice(0, o)], embedding, slice(o, o + e), dtype)
        self._dynamics, self._reward = _FrozenMLP(model.dynamics, *step), _FrozenMLP(model.reward_head, *step)
        self._termination = None
        if model.termination_head is not None:
            self._termination = _FrozenMLP(model.termination_head, [slice(0, z)], embedding, slice(z, z + e), dtype)
        self._mask = model.action_mask[task] if model.config.apply_action_mask else None
        if self._mask is not None and bool((self._mask == 1).all()):
            self._mask = None

    def _masked(self, action: Tensor) -> Tensor:
        return action if self._mask is None else action * self._mask

    def encode(self, obs: Tensor) -> Tensor:
        """z = E(s, e). obs: [..., obs_dim]. Returns [..., latent_dim]."""
        m = self.model
        obs = (obs - m.obs_mean[self.task]) / m.obs_std[self.task]
        return obs if self._encoder is None else self._encoder(obs)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """z' = F(z, a, e); shapes as in `Dynamics`."""
        change = self._dynamics(state, self._masked(action))
        return state + change if self.model.config.residual else change

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor | None = None) -> Tensor:
        """R(z, a, e), shape [...]; the next state is not used."""
        return self.model.decode_reward(self._reward(state, self._masked(action)), symexp=self.reward_symexp)

    def done(self, next_state: Tensor) -> Tensor | None:
        """Bool [...], where a model with a termination head takes the episode to have ended; None without one."""
        return None if self._termination is None else self._termination(next_state.detach()).squeeze(-1) > 0


class FrozenMultiTaskModel:
    """A world model as the dynamics of all its tasks at once, for one policy that serves every task (App. F, Fig. 18).

    state: [z | e | mask], shape [..., latent_dim + task_dim + action_dim]; the policy sees the task through its embedding.
    """

    def __init__(self, model: WorldModel, *, reward_symexp: bool = False):
        if not model.config.task_dim:
            raise ValueError(f"FrozenMultiTaskModel: needs a model with task embeddings, got task_dim=0 in {model}")
        self.model, self.reward_symexp, self.action_dim = model, reward_symexp, model.action_dim
        z, e, a = model.latent_dim, model.config.task_dim, model.action_dim
        self._sizes = (z, e, a)
        self.state_dim = z + e + a
        columns, dtype = [slice(0, z + e), slice(z + e, z + e + a)], model.obs_mean.dtype
        self._dynamics = _FrozenMLP(model.dynamics, columns, None, None, dtype)
        self._reward = _FrozenMLP(model.reward_head, columns, None, None, dtype)
        self._termination = None
        if model.termination_head is not None:
            self._termination = _FrozenMLP(model.termination_head, [slice(0, z + e)], None, None, dtype)

    @torch.no_grad()
    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """[E(s, e) | e | mask] of observations [batch, obs_dim] of tasks [batch]. Returns [batch, state_dim]."""
        mask = self.model.action_mask[task] if self.model.config.apply_action_mask else torch.ones_like(self.model.action_mask[task])
        return torch.cat([self.model.encode(obs, task), self.model.task_embedding(task), mask], -1)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Next state; embedding and mask stay as they are."""
        z, e, mask = state.split(self._sizes, -1)
        change = self._dynamics(torch.cat([z, e], -1), action * mask)
        return torch.cat([z + change if self.model.config.residual else change, e, mask], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor | None = None) -> Tensor:
        """R(z, a, e), shape [...]."""
        z, e, mask = state.split(self._sizes, -1)
        return self.model.decode_reward(self._reward(torch.cat([z, e], -1), action * mask), symexp=self.reward_symexp)

    def done(self, next_state: Tensor) -> Tensor | None:
        """Bool [...], as of `FrozenWorldModel`."""
        seen = next_state.detach()[..., : sum(self._sizes[:2])]
        return None if self._termination is None else self._termination(seen).squeeze(-1) > 0
