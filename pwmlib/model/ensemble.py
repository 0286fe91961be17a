"""Several frozen world models as one cautious simulator: where they disagree, the data said little, and the reward is lowered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .frozen import FrozenWorldModel

__all__ = ["EnsembleDynamics"]


class EnsembleDynamics:
    """Members with one encoder (or none) are averaged behind the `Dynamics` protocol; an episode ends where any of them says so.

    pessimism: taken off the reward for every unit of disagreement, the standard deviation of the members' next latents (mean over
    dimensions) in units of what it is on the data, `usual`. It is differentiable: the policy's gradient leads away from the unknown.
    """

    def __init__(self, members: Sequence[FrozenWorldModel], *, pessimism: float = 0.0, usual: float = 1.0):
        if not members:
            raise ValueError("EnsembleDynamics: needs at least one member")
        if pessimism and len(members) < 2:
            raise ValueError(f"EnsembleDynamics: pessimism={pessimism} needs at least 2 members that can disagree")
        for what, tensors in (("encoders", _encoder), ("statistics of observations", _statistics)):
            first, *others = (tensors(m) for m in members)
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


def _encoder(member: FrozenWorldModel) -> list[Tensor]:
    return [] if member.model.encoder is None else list(member.model.encoder.parameters())


def _statistics(member: FrozenWorldModel) -> list[Tensor]:
    return [member.model.obs_mean[member.task], member.model.obs_std[member.task]]
