"""Trained world models as differentiable simulators: frozen weights, gradients to states and actions only (Sec. 3.3)."""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .layers import NormedLinear, linear_layers, training_mode
from .world_model import WorldModel

__all__ = ["EnsembleDynamics", "FrozenMultiTaskModel", "FrozenWorldModel", "Precision"]

Precision = Literal["float32", "bfloat16"]


def frozen_copy(model: WorldModel, precision: Precision = "float32") -> WorldModel:
    """Copy a network without its weights, which ask for no gradient in the copy; in bfloat16 those of products are cast.

    A spectral norm is taken as it stands, so that no use of a weight moves it.
    """
    memo = {id(x): x.detach() for x in (*model.parameters(), *model.buffers())}
    net = copy.deepcopy(model, memo)
    with training_mode(net, False):
        for layer in linear_layers(net):
            weight, bias = layer.weight.detach(), layer.bias
            if layer._modules.pop("parametrizations", None) is not None:
                layer.__class__ = NormedLinear  # torch's own removal would write into the weight that is shared
            if precision == "bfloat16":
                weight, bias = weight.to(torch.bfloat16), bias.to(torch.bfloat16)
            layer.weight, layer.bias = (nn.Parameter(x, requires_grad=False) for x in (weight, bias))
    return net


class FrozenWorldModel:
    """A world model as the differentiable simulator of one task: the `Dynamics` protocol over latent states.

    Gradients flow to states and actions only: no weight gradient is computed or stored. With precision="bfloat16" matrix products run in
    bfloat16, the rest in float32. Build it anew after the model was trained further.
    """

    def __init__(self, model: WorldModel, task: int | Tensor = 0, *, precision: Precision = "float32", reward_symexp: bool = False):
        """Freeze the model's present weights.

        Args:
            model: the world model.
            task: the task's number; or, long [batch], that of each state of a batch.
            precision: of the matrix products.
            reward_symexp: give a two-hot head's rewards in their own units; else they stay in symlog space (the paper).
        """
        number = task if isinstance(task, Tensor) else torch.tensor(task, device=model.obs_mean.device)
        if not ((number >= 0) & (number < model.tasks)).all():
            raise ValueError(f"FrozenWorldModel: task must be in 0..{model.tasks - 1}, got {task}")
        self.model, self.task, self.reward_symexp, self.precision = model, number, reward_symexp, precision
        self.state_dim, self.action_dim, self.obs_dim = model.latent_dim, model.action_dim, model.obs_dim
        self._net = frozen_copy(model, precision)

    def _products(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def encode(self, obs: Tensor) -> Tensor:
        """Encode observations [..., obs_dim] as z = E(s, e), [..., latent_dim]."""
        with self._products(obs):
            return self._net.encode(obs, self.task).to(obs.dtype)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Return z' = F(z, a, e), shapes as in `Dynamics`."""
        with self._products(state):
            return self._net.next(state, action, self.task).to(state.dtype)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor | None = None) -> Tensor:
        """Return R(z, a, e), shape [...]; the next state is not used."""
        with self._products(state):
            logits = self._net.reward_logits(state, action, self.task).to(state.dtype)
        return self._net.decode_reward(logits, symexp=self.reward_symexp)

    def done(self, next_state: Tensor) -> Tensor | None:
        """Return where the termination head takes the episode to have ended, bool [...]; None without one."""
        return self._net.termination_logit(next_state.detach(), self.task) > 0 if self.model.config.termination else None


class EnsembleDynamics:
    """Several frozen models as one cautious simulator: where they disagree, the data said little, and the reward is lowered.

    Members with one encoder (or none) are averaged; an episode ends where any of them says so.
    pessimism: taken off the reward for every unit of disagreement, the standard deviation of the members' next latents (mean over
    dimensions) in units of what it is on the data, `usual`. It is differentiable: the policy's gradient leads away from the unknown.
    """

    def __init__(self, members: Sequence[FrozenWorldModel], *, pessimism: float = 0.0, usual: float = 1.0):
        if not members:
            raise ValueError("EnsembleDynamics: needs at least one member")
        if pessimism and len(members) < 2:
            raise ValueError(f"EnsembleDynamics: pessimism={pessimism} needs at least 2 members that can disagree")
        encoders = [[] if m.model.encoder is None else list(m.model.encoder.parameters()) for m in members]
        statistics = [[m.model.obs_mean[m.task], m.model.obs_std[m.task]] for m in members]
        for what, (first, *others) in (("encoders", encoders), ("statistics of observations", statistics)):
            if not all(len(x) == len(first) and all(map(torch.equal, first, x)) for x in others):
                raise ValueError(f"EnsembleDynamics: the members' {what} differ; their latents mean different things")
        self.members, self.pessimism, self.usual = list(members), pessimism, usual
        self.model, self.state_dim, self.action_dim = members[0].model, members[0].state_dim, members[0].action_dim

    def encode(self, obs: Tensor) -> Tensor:
        """Encode observations [..., obs_dim] as z = E(s), [..., latent_dim]."""
        return self.members[0].encode(obs)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the mean of the members' next latents."""
        return torch.stack([m.advance(state, action) for m in self.members]).mean(0)

    def disagreement(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the standard deviation of the members' next latents, mean over dimensions; shape [...]."""
        variance = torch.stack([m.advance(state, action) for m in self.members]).var(0, unbiased=False)
        return (variance + 1e-10).sqrt().mean(-1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor | None = None) -> Tensor:
        """Return the mean of the members' rewards, less `pessimism` times the disagreement; shape [...]."""
        mean = torch.stack([m.reward(state, action) for m in self.members]).mean(0)
        return mean - self.pessimism / self.usual * self.disagreement(state, action) if self.pessimism else mean

    def done(self, next_state: Tensor) -> Tensor | None:
        """Return whether any member takes the episode to have ended, bool [...]; None without termination heads."""
        ends = [end for m in self.members if (end := m.done(next_state)) is not None]
        return torch.stack(ends).any(0) if ends else None


class FrozenMultiTaskModel:
    """A world model as the dynamics of all its tasks at once, for one policy that serves every task (App. F, Fig. 18).

    state: [z | e | mask], shape [..., latent_dim + task_dim + action_dim]; the policy sees the task through its embedding.
    """

    def __init__(self, model: WorldModel, *, reward_symexp: bool = False):
        if not model.config.task_dim:
            raise ValueError(f"FrozenMultiTaskModel: needs a model with task embeddings, got task_dim=0 in {model}")
        self.model, self.reward_symexp, self.action_dim = model, reward_symexp, model.action_dim
        self._latent_dim = model.latent_dim
        self.state_dim = model.latent_dim + model.config.task_dim + model.action_dim
        self._net = frozen_copy(model)

    @torch.no_grad()
    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """Return [E(s, e) | e | mask], [batch, state_dim], of observations [batch, obs_dim] of tasks [batch]."""
        mask = self.model.action_mask[task] if self.model.config.apply_action_mask else torch.ones_like(self.model.action_mask[task])
        z = self.model.encode(obs, task)
        return torch.cat([z, *self.model._embed(task, z), mask], -1)

    def _step_inputs(self, state: Tensor, action: Tensor) -> Tensor:
        known, mask = state.tensor_split([-self.action_dim], -1)
        return torch.cat([known, action * mask], -1)

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the next state; embedding and mask stay as they are."""
        z, constant = state.tensor_split([self._latent_dim], -1)
        change = self._net.dynamics(self._step_inputs(state, action))
        return torch.cat([z + change if self.model.config.residual else change, constant], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor | None = None) -> Tensor:
        """Return R(z, a, e), shape [...]."""
        return self._net.decode_reward(self._net.reward_head(self._step_inputs(state, action)), symexp=self.reward_symexp)

    def done(self, next_state: Tensor) -> Tensor | None:
        """Return where the episode has ended, as `FrozenWorldModel.done` does."""
        head, seen = self._net.termination_head, next_state.detach()[..., : -self.action_dim]
        return None if head is None else head(seen).squeeze(-1) > 0
