"""Are the simulator's gradients good for something? SHAC (Xu et al. 2022) in one file, learning Hopper in about half a minute a seed.

Per epoch: 16 steps in 64 environments, the actor follows d(discounted rewards + terminal value) / d(its parameters) through the
contacts, the critic fits TD(lambda) targets. Episodes go on from epoch to epoch; the graph is cut in between. To be read in one piece;
`pwmlib.optimizer.shac` is the resumable learner that the experiments use.

Run: python benchmarks/minimal_shac.py [--env hopper] [--epochs 300] [--seeds 5] [--record]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from companion.running.results import save_table
from pwmlib.optimizer.imagination import td_lambda
from pwmlib.sim.env import DifferentiableEnv


@dataclass(frozen=True)
class Settings:
    epochs: int = 300
    horizon: int = 16
    count: int = 64
    gamma: float = 0.99
    lam: float = 0.95
    actor_lr: float = 2e-3
    critic_lr: float = 5e-4
    critic_passes: int = 4
    target_kept: float = 0.2


def net(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(a, b), nn.ELU(), nn.LayerNorm(b)]
    return nn.Sequential(*layers[:-2])


class Agent(nn.Module):
    """Squashed Gaussian actor, critic and its slow copy, running observation statistics."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        self.actor, self.log_std = net([obs_dim, 400, 200, 100, action_dim]), nn.Parameter(torch.full((action_dim,), -1.0))
        self.critic, self.target = net([obs_dim, 400, 200, 1]), net([obs_dim, 400, 200, 1])
        self.target.load_state_dict(self.critic.state_dict())
        for name in ("mean", "var"):
            self.register_buffer(name, torch.full((obs_dim,), float(name == "var")))
        self.register_buffer("seen", torch.tensor(1e-4))

    def normal(self, obs: Tensor) -> Tensor:
        return (obs - self.mean) / (self.var + 1e-5).sqrt()

    def act(self, obs: Tensor, *, explore: bool) -> Tensor:
        mean = self.actor(self.normal(obs))
        return torch.tanh(mean + self.log_std.exp() * torch.randn_like(mean) if explore else mean)

    @torch.no_grad()
    def watch(self, obs: Tensor) -> None:
        """Fold a batch of observations into mean and variance."""
        count, mean, var = float(len(obs)), obs.mean(0), obs.var(0, unbiased=False)
        total, shift = self.seen + count, mean - self.mean
        self.var.copy_((self.var * self.seen + var * count + shift**2 * self.seen * count / total) / total)
        self.mean.add_(shift * count / total)
        self.seen.copy_(total)


def actor_loss(agent: Agent, env: DifferentiableEnv, s: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """-(rewards + terminal values) per step; and what the critic learns from."""
    obs, discount, total = env.detach(), torch.ones(env.count), 0.0
    seen = {name: [] for name in ("obs", "reward", "next_value", "terminated", "truncated")}
    for t in range(s.horizon):
        seen["obs"].append(obs.detach())
        step = env.step(agent.act(obs, explore=True))
        value = agent.target(agent.normal(step.final_obs))[:, 0]
        ends = step.truncated | (torch.tensor(t == s.horizon - 1) & ~step.terminated)
        total = total + discount * (step.reward + s.gamma * torch.where(ends, value, 0.0))
        discount = torch.where(step.terminated | step.truncated, 1.0, discount * s.gamma)
        for name, x in (("reward", step.reward), ("next_value", value), ("terminated", step.terminated), ("truncated", step.truncated)):
            seen[name].append(x.detach())
        obs = step.obs
    return -total.mean() / s.horizon, {name: torch.stack(x) for name, x in seen.items()}


def train(env_name: str, seed: int, s: Settings) -> list[dict[str, float]]:
    """Deterministic returns of 64 other episodes before, during and after training."""
    torch.manual_seed(seed)
    env = DifferentiableEnv(env_name, s.count, seed=seed)
    env.reset(spread=True)
    agent, began, evaluating, curve = Agent(env.obs_dim, env.action_dim), time.process_time(), 0.0, []
    actor = torch.optim.Adam([*agent.actor.parameters(), agent.log_std], s.actor_lr, betas=(0.7, 0.95))
    critic = torch.optim.Adam(agent.critic.parameters(), s.critic_lr, betas=(0.7, 0.95))
    for epoch in range(s.epochs):
        for optimiser, lr in ((actor, s.actor_lr), (critic, s.critic_lr)):
            optimiser.param_groups[0]["lr"] = lr + (1e-5 - lr) * epoch / s.epochs
        loss, seen = actor_loss(agent, env, s)
        actor.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(actor.param_groups[0]["params"], 1.0)
        actor.step()
        fit_critic(agent, critic, seen, s)
        agent.watch(seen["obs"].flatten(0, 1))
        if (epoch + 1) % 50 == 0:
            paused = time.process_time()
            result = evaluate(agent, env_name)
            evaluating += time.process_time() - paused
            seconds = time.process_time() - began - evaluating
            curve.append({"env": env_name, "seed": seed, "epoch": epoch + 1, "env_steps": (epoch + 1) * s.horizon * s.count,
                          "return": result, "cpu_seconds": seconds})  # fmt: skip
    return curve


def fit_critic(agent: Agent, optimiser: torch.optim.Optimizer, seen: dict[str, Tensor], s: Settings) -> None:
    flags = {name: seen[name] for name in ("terminated", "truncated")}
    targets = td_lambda(seen["reward"], seen["next_value"], gamma=s.gamma, lam=s.lam, **flags).flatten()
    obs = agent.normal(seen["obs"]).flatten(0, 1)
    for _ in range(s.critic_passes):
        for part in torch.randperm(len(obs)).chunk(4):
            optimiser.zero_grad()
            (agent.critic(obs[part])[:, 0] - targets[part]).square().mean().backward()
            nn.utils.clip_grad_norm_(agent.critic.parameters(), 1.0)
            optimiser.step()
    with torch.no_grad():
        for slow, fast in zip(agent.target.parameters(), agent.critic.parameters(), strict=True):
            slow.lerp_(fast, 1 - s.target_kept)


@torch.no_grad()
def evaluate(agent: Agent, env_name: str, seed: int = 10_000) -> float:
    """Mean undiscounted return of one deterministic episode in each of 64 environments."""
    env = DifferentiableEnv(env_name, 64, seed=seed)
    obs, running, total = env.reset(), torch.ones(64), torch.zeros(64)
    for _ in range(env.spec.episode_length):
        step = env.step(agent.act(obs, explore=False))
        total += running * step.reward
        running *= (~(step.terminated | step.truncated)).float()
        obs = step.obs
    return float(total.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--env", default="hopper")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write data/results/benchmarks/minimal_shac.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(arguments.seeds):
        rows += train(arguments.env, seed, Settings(epochs=arguments.epochs, horizon=arguments.horizon))
        print(f"seed {seed}: return {rows[-1]['return']:.0f} after {rows[-1]['cpu_seconds']:.0f} CPU-seconds", flush=True)
    if arguments.record:
        save_table("benchmarks/minimal_shac", pd.DataFrame(rows), f"python benchmarks/minimal_shac.py --epochs {arguments.epochs} --record")


if __name__ == "__main__":
    main()
