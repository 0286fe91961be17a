"""The paper's thesis made visible: does the world model's gradient point where the simulator's does, while the policy learns from it?"""

from collections.abc import Callable

import torch
from torch import Tensor

from pwmlib.estimators import gradient_fidelity
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel
from pwmlib.sim.env import DifferentiableEnv, EnvDynamics


def gradient_check(
    model: WorldModel, policy: Callable[[Tensor, None], Tensor], task: str, *, horizon: int = 16, warm_up: int = 40, samples: int = 64,
    noise: float = 0.24, stiffness: float = 1.0, seed: int = 30_000, device: str | torch.device | None = None,
) -> dict[str, float]:  # fmt: skip
    """Cosine and norm ratio of d(sum of rewards over `horizon` steps) / d(actions), model against simulator.

    States: where the policy (with `noise` added to its actions) is after `warm_up` steps; actions: what it does there next. device: where
    model and policy are.
    Returns gradient_cosine (mean over states), gradient_batch_cosine (of the mean gradients), gradient_norm_ratio (model / simulator), and
    the model's accuracy along the same open-loop rollouts: reward_rmse, over all steps before an episode's end, in reward units.
    """
    env = DifferentiableEnv(task, samples, seed=seed, stiffness=stiffness, device=device)
    generator = torch.Generator().manual_seed(seed)
    obs, actions, rewards = env.reset(), [], []
    alive = [torch.ones(samples, device=obs.device)]
    with torch.no_grad():
        for t in range(warm_up + horizon):
            if t == warm_up:
                start = env.state.detach().clone()
            shape = (samples, env.action_dim)
            action = (policy(obs, None) + noise * torch.randn(shape, generator=generator).to(obs.device)).clamp(-1.0, 1.0)
            step = env.step(action)
            obs = step.obs
            if t >= warm_up:
                actions.append(action)
                rewards.append(step.reward)
                alive.append(alive[-1] * (~(step.terminated | step.truncated)).float())
    simulator = EnvDynamics(task, samples, stiffness=stiffness, device=device)
    view = FrozenWorldModel(model, reward_symexp=True)
    latents = view.encode(simulator.observe(start)).detach()
    predicted, z = [], latents
    with torch.no_grad():
        for action in actions:
            predicted.append(view.reward(z, action, None))
            z = view.advance(z, action)
    counted = torch.stack(alive[:-1])
    squared = (torch.stack(predicted) - torch.stack(rewards)).square().masked_fill(counted == 0, 0.0)
    row = gradient_fidelity(view, simulator, latents, start, torch.stack(actions), horizons=[horizon]).iloc[0]
    gradient = {f"gradient_{name}": float(row[name]) for name in ("cosine", "batch_cosine", "norm_ratio")}
    return {**gradient, "reward_rmse": float((squared.sum() / counted.sum()).sqrt())}
