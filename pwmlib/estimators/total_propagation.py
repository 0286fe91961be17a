"""Total propagation (Parmas et al. 2018): at every step the first-order and the likelihood-ratio estimate, weighted by their variances."""

import torch
from torch import Tensor, nn

from pwmlib.model.dynamics import Dynamics

from .policy_gradients import check_samples, parameter_gradients

__all__ = ["total_propagation"]


def total_propagation(
    dynamics: Dynamics, policy: nn.Module, start: Tensor, noise: Tensor, *, state_noise: Tensor, state_std: float, gamma: float = 1.0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute per-sample gradients [N, P] for the whole horizon, and the share of the likelihood-ratio estimate at each step, [T].

    The world is s' = advance(s, a) + state_std xi: the noise at each next state is what the likelihood ratio works on. Going backward,
    the derivative of the return-to-go with respect to the mean of s' is estimated both ways; each is pushed on into theta, and their
    shares are inverse to the variances found there. The mixture is what is propagated further back, so that an exploding first-order
    gradient is replaced where it explodes. After an episode's end nothing counts, in either estimate.
    start: [N, state_dim]; noise: [T, N, action_dim]; state_noise: xi, [T, N, state_dim].
    """
    if not state_std > 0:
        raise ValueError(f"total_propagation: state_std must be positive, got {state_std}; the likelihood ratio needs noise at the states")
    if state_noise.shape != (len(noise), *start.shape):
        raise ValueError(f"total_propagation: state_noise has shape {tuple(state_noise.shape)}, expected {(len(noise), *start.shape)}")
    check_samples(start, "total_propagation")
    steps, state, alive = [], start, torch.ones(len(start), dtype=torch.bool, device=start.device)
    for t, (step_noise, xi) in enumerate(zip(noise, state_noise, strict=True)):
        before = state.detach().requires_grad_()
        action = policy(before, step_noise)
        chosen = action.detach().requires_grad_()
        mean = dynamics.advance(before, chosen)
        after = (mean + state_std * xi).detach().requires_grad_()
        reward = gamma**t * dynamics.reward(before, chosen, after).masked_fill(~alive, 0.0)
        steps.append((before, action, chosen, mean, after, reward, alive))
        state, done = after, dynamics.done(after)
        if done is not None:  # as in `sample_trajectories`
            alive = alive & ~done
            state = after.where(alive[:, None], start)
    to_go = torch.zeros_like(steps[0][5])
    adjoint, shares = torch.zeros_like(start), torch.zeros(len(noise), dtype=start.dtype)
    parts: list[Tensor] = []
    for t in reversed(range(len(noise))):
        before, action, chosen, mean, after, reward, alive = steps[t]
        to_go = to_go + reward.detach()
        r_before, r_chosen, r_after = _gradients(reward, (before, chosen, after))
        pathwise = adjoint + r_after
        others = (to_go.sum() - to_go) / (alive.sum() - 1).clamp(min=1)
        centred = (to_go - others).masked_fill(~alive, 0.0)
        ratio = centred[:, None] * state_noise[t] / state_std
        through = [_gradients(mean, (before, chosen), seed, keep=True) for seed in (pathwise, ratio)]
        seeds = torch.stack([through[0][1], through[1][1]])[:, None]
        both = parameter_gradients(policy, before.detach()[None], noise[t : t + 1], seeds)
        spread = both.var(1).sum(-1)
        share = float(spread[0] / spread.sum()) if float(spread.sum()) > 0 else 0.0
        shares[t] = share
        on_state, on_action = ((1 - share) * through[0][i] + share * through[1][i] for i in (0, 1))
        direct = parameter_gradients(policy, before.detach()[None], noise[t : t + 1], r_chosen[None, None])[0]
        parts.append((1 - share) * both[0] + share * both[1] + direct)
        (feedback,) = _gradients(action, (before,), on_action + r_chosen)
        adjoint = r_before + on_state + feedback
    return torch.stack(parts).sum(0), shares


def _gradients(output: Tensor, inputs: tuple[Tensor, ...], seed: Tensor | None = None, *, keep: bool = False) -> list[Tensor]:
    """Gradients, zeros where there is no dependence."""
    if not output.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    seed = torch.ones_like(output) if seed is None else seed
    found = torch.autograd.grad(output, inputs, seed, allow_unused=True, retain_graph=keep)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
