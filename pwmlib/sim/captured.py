"""A whole rollout, policy and simulator, recorded once as CUDA graphs: one launch forward, one backward."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .env import DifferentiableEnv

__all__ = ["RolloutStep", "capture_rollout"]


class RolloutStep(NamedTuple):
    """What a rollout of H steps in E environments gives; the first axis is time."""

    rewards: Tensor
    """[H, E]."""
    obs: Tensor
    """Observations that the policy saw, [H, E, obs_dim]."""
    final_obs: Tensor
    """Observations after each step before any reset, [H, E, obs_dim]."""
    terminated: Tensor
    truncated: Tensor
    state: Tensor
    """State after the last step, [E, nq + nd]."""
    last_obs: Tensor
    """Observation of that state."""


class _Rollout(nn.Module):
    def __init__(self, env: DifferentiableEnv, policy: nn.Module):
        super().__init__()
        self.policy, self.simulator = policy, env.simulator

    def forward(self, state: Tensor, obs: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        steps = []
        for step_noise in noise:
            step = self.simulator.step(state, torch.tanh(self.policy(obs) + step_noise))
            steps.append((step.reward, obs, step.final_obs, step.terminated, step.truncated))
            state, obs = step.state, step.obs
        rewards, seen, final, terminated, truncated = map(torch.stack, zip(*steps, strict=True))
        return rewards, seen, final, terminated.float(), truncated.float(), state, obs


def capture_rollout(
    env: DifferentiableEnv, policy: nn.Module, *, horizon: int, captured: bool = True
) -> Callable[[Tensor, Tensor, Tensor], RolloutStep]:
    """Make a function (state, obs, noise [H, E, action_dim]) -> `RolloutStep` that is differentiable in the policy's parameters.

    On a GPU the H forward and H backward kernels, and the policy between them, are two CUDA graphs. The recording itself takes a few
    warm-up steps, which advance the environment's counters.

    Args:
        env: where the rollouts go.
        policy: observation [E, obs_dim] -> mean action [E, action_dim]; the action is tanh(mean + noise).
        horizon: H, control steps.
        captured: False gives the same function without graphs, also on a CPU.

    Raises:
        ValueError: the environment is not on a GPU, though the rollout is to be captured.
    """
    rollout: nn.Module = _Rollout(env, policy)
    device = env.simulator.device
    if captured and device.type != "cuda":
        raise ValueError(f"capture_rollout needs an environment on a CUDA device, this one is on {device}; captured=False runs eagerly")
    if captured:
        noise = torch.zeros(horizon, env.count, env.action_dim, device=device)
        state = env.state.detach().clone()
        graphed = torch.cuda.make_graphed_callables(rollout, (state, env.simulator.observe(state), noise))
        assert isinstance(graphed, nn.Module)  # the rollout itself, whose forward launches a graph
        rollout = graphed

    def roll(state: Tensor, obs: Tensor, noise: Tensor) -> RolloutStep:
        if len(noise) != horizon:
            raise ValueError(f"capture_rollout: noise has {len(noise)} steps, the rollout has {horizon}")
        step = RolloutStep(*rollout(state, obs, noise))
        return step._replace(terminated=step.terminated.bool(), truncated=step.truncated.bool())

    return roll
