"""What a policy can be rolled out in: true, simulated and learned dynamics behind two small protocols."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Dynamics", "Episodes", "Policy"]

Policy = Callable[[Tensor, Tensor], Tensor]
"""(state [batch, state_dim], standard normal noise [batch, action_dim]) -> action [batch, action_dim] in [-1, 1]."""


@runtime_checkable
class Dynamics(Protocol):
    """PWM, SHAC and the gradient estimators need this of a world: batched torch tensors in, differentiable tensors out."""

    state_dim: int
    action_dim: int

    def advance(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the next state [..., state_dim] after an action [..., action_dim] in [-1, 1]."""
        ...

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Return the reward of the transition, [...], for any number of leading dimensions, so that a whole rollout is one call."""
        ...

    def done(self, next_state: Tensor) -> Tensor | None:
        """Return whether the episode terminated in next_state, bool [...]; None when episodes never terminate."""
        ...


@runtime_checkable
class Episodes(Protocol):
    """Environments with a state of their own, as simulators have: an episode that ends is followed by a new one."""

    count: int
    obs_dim: int
    action_dim: int

    def step(self, action: Tensor) -> Any:
        """Take one step of all environments, action [count, action_dim].

        Returns:
            What has obs (after a reset where an episode ended), final_obs (before it), each [count, obs_dim], and reward, terminated,
            truncated, each [count].
        """
        ...

    def detach(self) -> Tensor:
        """Cut the graph; returns the present observations, [count, obs_dim]."""
        ...
