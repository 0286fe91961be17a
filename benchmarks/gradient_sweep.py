"""How long does the sweep of Section 3.2 take: per-sample gradients at 50 horizons, 100 samples, three worlds?

Ours: one batched rollout and one sweep backward for all samples and horizons, statistics with 200 bootstrap resamples included.
Baseline: as the released script does it, one rollout and one backward pass for each sample and horizon; timed on a few and extrapolated
with the number of steps. Same policy, worlds (5M models, here with random weights) and noise; the gradients are compared.

Run: python benchmarks/gradient_sweep.py [--record]
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
import torch
from torch import Tensor, nn

from companion.double_pendulum.sweep import followed
from companion.double_pendulum.training import DOUBLE_PENDULUM_SCALES
from companion.running.results import save_table
from pwmlib.estimators import first_order_along, horizon_table
from pwmlib.model.dynamics import Dynamics
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.sim.env import EnvDynamics

SAMPLES, HORIZONS = 100, 50


def one_by_one(world: Dynamics, start: Tensor, policy: nn.Module, seen: Tensor, noise: Tensor, horizon: int, sample: int) -> Tensor:
    """One gradient: the policy's actions on what it saw, pushed through the world."""
    state, total = start[sample : sample + 1], 0.0
    for t in range(horizon):
        action = policy(seen[t, sample : sample + 1], noise[t, sample : sample + 1])
        following = world.advance(state, action)
        total, state = total + world.reward(state, action, following).sum(), following
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(policy.parameters()))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true", help="write data/results/benchmarks/gradient_sweep.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    true, policy = EnvDynamics("double_pendulum", SAMPLES), Actor(6, 1, hidden=(64, 64), standardise=True)
    single = EnvDynamics("double_pendulum", 1)
    start, noise = true.reset(), torch.randn(HORIZONS, SAMPLES, 1)
    seen, actions = followed(true, policy, start, noise)
    worlds = {"true": (true, start)}
    for h in (3, 16):
        model = WorldModel(6, 1, config=DOUBLE_PENDULUM_SCALES["laptop"].model)
        nn.init.trunc_normal_(model.reward_head[-1].weight, std=0.02)
        view = FrozenWorldModel(model)
        worlds[f"model, H = {h}"] = view, view.encode(true.observe(start)).detach()
    rows = []
    for name, (world, first) in worlds.items():
        began = time.perf_counter()
        found = first_order_along(world, first, actions, policy=policy, seen=seen, noise=noise)
        horizon_table(found)
        ours = time.perf_counter() - began
        slow, steps, alone = 0.0, 0, single if name == "true" else world
        for horizon in (10, 30, 50):
            for sample in range(3):
                began = time.perf_counter()
                expected = one_by_one(alone, first, policy, seen, noise, horizon, sample)
                slow, steps = slow + time.perf_counter() - began, steps + horizon
                error = float((found.at(horizon)[sample] - expected).norm() / expected.norm())
                if error > 1e-3:
                    raise AssertionError(f"{name}, H = {horizon}, sample {sample}: the gradients differ by {error:.1e}")
        baseline = slow / steps * SAMPLES * sum(range(1, HORIZONS + 1))
        rows.append({"world": name, "seconds": ours, "baseline_seconds": baseline, "ratio": baseline / ours})
    table = pd.DataFrame(rows)
    table.loc[len(table)] = ["all", table["seconds"].sum(), s := table["baseline_seconds"].sum(), s / table["seconds"].sum()]
    print(table.to_string(index=False, float_format=lambda x: f"{x:.2f}"))
    if arguments.record:
        save_table("benchmarks/gradient_sweep", table, "python benchmarks/gradient_sweep.py --record")


if __name__ == "__main__":
    main()
