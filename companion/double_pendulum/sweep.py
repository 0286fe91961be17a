"""Gradients of every world, setting and horizon, and how disturbances grow."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion.double_pendulum.training import ENV, DoublePendulumScale, _split, load_model, load_policy
from pwmlib.data import SliceSampler
from pwmlib.estimators import first_order, first_order_along, horizon_table, zeroth_order
from pwmlib.estimators.trajectories import open_loop
from pwmlib.model.dynamics import Dynamics
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.sim.env import EnvDynamics

FEEDBACK = "trained policy, feedback"
"""The policy reacts inside each world: on observations in the simulator, a copy on latents in a model. Other parameters, other units of
the variance; the ESNR has none."""

SAME_ACTIONS, RANDOM = "trained policy, same actions", "random policy, own actions"
REWARD_UNITS = "trained policy, same actions, reward in the released script's units"
"""A setting of the true dynamics only: the reward scaled, which must change the variance and no ESNR."""


class ReleasedUnits(EnvDynamics):
    """The simulator with r / 21554 + 1, as the released script has it."""

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state) / 21554 + 1.0


class ObservingPolicy(nn.Module):
    """A policy on observations as a policy on the simulator's states."""

    def __init__(self, world: EnvDynamics, policy: nn.Module):
        super().__init__()
        self.world, self.policy = world, policy

    @property
    def std(self) -> Tensor:
        """The deviation of the policy's noise."""
        return self.policy.std

    def mean(self, state: Tensor) -> Tensor:
        """What the policy does on average in a state."""
        return self.policy.mean(self.world.observe(state))

    def forward(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.policy(self.world.observe(state), noise)


def sweep(scale: DoublePendulumScale, shac_folder: str, model_folders: dict[int, str], replays: list[str]) -> dict[str, pd.DataFrame]:
    """Statistics of every world, setting and horizon ("table"), and the "growth" of disturbances."""
    true, policy = EnvDynamics(ENV, scale.samples, seed=1), load_policy(scale, shac_folder)
    models = {f"model, H = {h}": load_model(scale, folder) for h, folder in model_folders.items()}
    start, noise = true.reset(), torch.randn(scale.horizons, scale.samples, 1, generator=torch.Generator().manual_seed(0))
    starts = {"true": start, **{name: model.encode(true.observe(start)) for name, model in models.items()}}
    worlds: dict[str, Dynamics] = {"true": true, **models}
    on_states, hidden, data = ObservingPolicy(true, policy), scale.shac.actor_hidden, _split(replays)[0]

    seen, acted = followed(true, policy, start, noise)
    same = {"policy": policy, "seen": seen, "noise": noise}
    found = {(SAME_ACTIONS, name): first_order_along(world, starts[name], acted, **same) for name, world in worlds.items()}
    found[REWARD_UNITS, "true"] = first_order_along(ReleasedUnits(ENV, scale.samples, seed=1), start, acted, **same)
    found[FEEDBACK, "true"] = first_order(true, on_states, start, noise)
    found[SAME_ACTIONS, "true, zeroth order"] = zeroth_order(true, on_states, start, noise)
    for name, model in models.items():
        found[FEEDBACK, name] = first_order(model, clone_policy(policy, model, data, hidden), starts[name], noise)
    for name, model in models.items():
        random = random_policy(model, hidden)
        found[RANDOM, name] = first_order(model, random, starts[name], noise, detach_policy_input=True)
    # As released: on the true dynamics the last model's encoder reads the observation.
    seen, taken = followed(true, random, start, noise, read=model.encode)
    found[RANDOM, "true"] = first_order_along(true, start, taken, policy=random, seen=seen, noise=noise)
    tables = [horizon_table(x, resamples=scale.resamples).assign(setting=s, world=w) for (s, w), x in found.items()]
    growth = [perturbation_growth(world, starts[name], acted).assign(world=name) for name, world in worlds.items()]
    return {"table": pd.concat(tables, ignore_index=True), "growth": pd.concat(growth, ignore_index=True)}


@torch.no_grad()
def followed(
    world: EnvDynamics, policy: nn.Module, start: Tensor, noise: Tensor, *, read: Callable[[Tensor], Tensor] = lambda obs: obs
) -> tuple[Tensor, Tensor]:
    """What a policy sees, [T, N, ...], and does, [T, N, 1], in the simulator. read: maps the observation to what it sees."""
    state, seen, actions = start, [], []
    for step_noise in noise:
        seen.append(read(world.observe(state)))
        actions.append(policy(seen[-1], step_noise))
        state = world.advance(state, actions[-1])
    return torch.stack(seen), torch.stack(actions)


def random_policy(world: FrozenWorldModel, hidden: tuple[int, ...]) -> Actor:
    """A freshly initialised policy on latents, as the released script uses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Actor(world.state_dim, 1, hidden=hidden)


def clone_policy(policy: Actor, world: FrozenWorldModel, data: SliceSampler, hidden: tuple[int, ...]) -> Actor:
    """A policy on latents that acts like the given one on observations (regression of the means on replay states)."""
    copy, rng, updates = random_policy(world, hidden), np.random.default_rng(0), 400
    with torch.no_grad():
        copy.log_std.copy_(policy.log_std)
    optimiser = torch.optim.Adam(copy.mean.parameters(), lr=2e-3)
    for step in range(updates):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / updates)
        obs = data.start_observations(0, 256, rng)
        with torch.no_grad():
            z, target = world.encode(obs), torch.tanh(policy.mean(obs))
        optimiser.zero_grad()
        (torch.tanh(copy.mean(z)) - target).square().mean().backward()
        optimiser.step()
    return copy


@torch.no_grad()
def perturbation_growth(world: Dynamics, start: Tensor, actions: Tensor) -> pd.DataFrame:
    """|difference of two rollouts| / |difference of their starts| under the same actions, one row a horizon.

    A random direction of length 1e-3 times the root mean square of the start states; float32 limits how small it may be.
    """
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    direction = direction / direction.norm(dim=-1, keepdim=True) * 1e-3 * start.square().sum(-1).mean().sqrt()
    one, other = (open_loop(world, x, actions).states for x in (start, start + direction))
    distance = (other - one).norm(dim=-1)
    low, middle, high = (distance[1:] / distance[0]).quantile(torch.tensor([0.25, 0.5, 0.75]), dim=1).tolist()
    return pd.DataFrame({"horizon": range(1, len(actions) + 1), "growth": middle, "growth_low": low, "growth_high": high})
