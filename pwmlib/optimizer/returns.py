"""TD(lambda) targets (Eq. 7-8, with the bootstrap exponent and the last term corrected)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["discounted_sum", "td_lambda"]


def td_lambda(
    reward: Tensor,
    next_value: Tensor,
    *,
    gamma: float,
    lam: float,
    terminated: Tensor | None = None,
    truncated: Tensor | None = None,
) -> Tensor:
    """lambda-returns of a batch of rollouts, by the backward recursion of Eq. 8.

    G_t = r_t + gamma [(1 - c_t) (1 - terminated_t) V(s_{t+1}) + c_t G_{t+1}], with c_t = lambda inside an episode and 0 at its
    end or at the end of the window. Eq. 8 is its closed form: (1 - lambda) sum_h lambda^(h-1) G^(h) + lambda^(H-t-1) G^(H-t).

    reward, next_value: shape [horizon, ...]; next_value[t] is V of the state reached at step t (before any reset).
    terminated: bool, same shape; the episode ended there for good, V counts as 0. What follows, NaN or not, changes no earlier target.
    truncated: bool, same shape; the episode was cut there, V is bootstrapped.
    Returns targets of V(s_t), shape [horizon, ...].
    """
    if reward.shape != next_value.shape:
        raise ValueError(f"td_lambda: reward {tuple(reward.shape)} and next_value {tuple(next_value.shape)} must have one shape")
    if not 0.0 <= lam <= 1.0 or not 0.0 <= gamma <= 1.0:
        raise ValueError(f"td_lambda: gamma and lam must lie in [0, 1], got gamma={gamma}, lam={lam}")
    ends = torch.zeros_like(reward, dtype=torch.bool)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if flag is not None:
            if flag.shape != reward.shape:
                raise ValueError(f"td_lambda: {name} {tuple(flag.shape)} must have the shape of reward {tuple(reward.shape)}")
            ends = ends | flag.bool()
    bootstrap = next_value if terminated is None else next_value.masked_fill(terminated.bool(), 0.0)
    targets: list[Tensor] = []
    following = bootstrap[-1]
    for t in reversed(range(reward.shape[0])):
        mixed = torch.where(ends[t], bootstrap[t], (1.0 - lam) * bootstrap[t] + lam * following)
        following = reward[t] + gamma * mixed
        targets.append(following)
    return torch.stack(targets[::-1])


def discounted_sum(reward: Tensor, *, gamma: float) -> Tensor:
    """sum_t gamma^t r_t over the first dimension; reward shape [horizon, ...], returns shape [...]."""
    discount = gamma ** torch.arange(reward.shape[0], device=reward.device, dtype=reward.dtype)
    return torch.tensordot(discount, reward, dims=1)
