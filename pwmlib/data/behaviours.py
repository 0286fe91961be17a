"""Behaviours that generate offline episodes: random actions, planning on the simulator, MetaWorld's scripted experts made imperfect.

A behaviour is a function (env, rng) -> act, and act a function (observation, decision) -> action, with the randomness of one
episode drawn from `rng`. Another source, replay of a learning agent, is `pwmlib.optimizer.online_episodes`.
"""

from collections.abc import Callable

import numpy as np

from pwmlib.errors import one_of
from pwmlib.tasks import Environment
from pwmlib.tasks.environment import DMControl, MetaWorld

__all__ = ["BEHAVIOURS", "make_behaviour"]

Act = Callable[[np.ndarray, int], np.ndarray]


def uniform_random(env: Environment, rng: np.random.Generator) -> Act:
    """Draw independent uniform actions."""
    return lambda obs, step: rng.uniform(-1.0, 1.0, env.task.action_dim)


def correlated_random(env: Environment, rng: np.random.Generator) -> Act:
    """Draw noise of unit variance, correlated over time (rho 0.8 or 0.95 per episode), which reaches farther than white noise."""
    rho = rng.choice([0.8, 0.95])
    state = rng.standard_normal(env.task.action_dim)

    def act(obs: np.ndarray, step: int) -> np.ndarray:
        nonlocal state
        state = rho * state + np.sqrt(1 - rho**2) * rng.standard_normal(env.task.action_dim)
        return state

    return act


def scripted_noisy(env: Environment, rng: np.random.Generator) -> Act:
    """Add Gaussian noise of one scale per episode (0.1, 0.3, 0.6 or 1) to the scripted expert."""
    expert, scale = _scripted(env).expert, rng.choice([0.1, 0.3, 0.6, 1.0])
    return lambda obs, step: expert(obs) + scale * rng.standard_normal(env.task.action_dim)


def scripted_hold(env: Environment, rng: np.random.Generator) -> Act:
    """Follow the scripted expert with a little noise, and stay while the task is solved instead of driving on."""
    scripted = _scripted(env)

    def act(obs: np.ndarray, step: int) -> np.ndarray:
        action = scripted.expert(obs)
        if scripted.success:
            return np.concatenate([np.zeros(3), action[3:]])
        return action + 0.05 * rng.standard_normal(env.task.action_dim)

    return act


def scripted_switching(env: Environment, rng: np.random.Generator) -> Act:
    """Interrupt the scripted expert by 5 to 20 random decisions at random times, so that recoveries are seen."""
    expert = _scripted(env).expert
    interrupted = np.zeros(env.task.decisions, bool)
    for _ in range(3):
        start = int(rng.integers(env.task.decisions))
        interrupted[start : start + int(rng.integers(5, 21))] = True
    return lambda obs, step: rng.uniform(-1.0, 1.0, env.task.action_dim) if interrupted[step] else expert(obs)


def mpc(env: Environment, rng: np.random.Generator) -> Act:
    """Plan on the true simulator by sampling (dm_control)."""
    return _planned(env, rng, share=1.0, noise=0.0)


def mpc_noisy(env: Environment, rng: np.random.Generator) -> Act:
    """Plan with fewer samples, disturbed by correlated noise; how few and how much is drawn for each episode."""
    return _planned(env, rng, share=float(rng.choice([0.25, 0.5, 1.0])), noise=float(rng.choice([0.1, 0.3, 0.6, 1.0])))


def _planned(env: Environment, rng: np.random.Generator, *, share: float, noise: float) -> Act:
    if not isinstance(env, DMControl):
        raise ValueError(f"{env.task.name}: planning on the simulator exists for dm_control tasks only")
    from pwmlib.tasks.planning import SamplingPlanner

    planner = SamplingPlanner(env, rng=rng, share=share)
    disturb = correlated_random(env, rng)

    def act(obs: np.ndarray, step: int) -> np.ndarray:
        if step == 0:
            planner.begin()
        return planner.act() + noise * disturb(obs, step)

    return act


def _scripted(env: Environment) -> MetaWorld:
    if not isinstance(env, MetaWorld):
        raise ValueError(f"{env.task.name}: scripted behaviours exist for MetaWorld tasks only")
    return env


BEHAVIOURS: dict[str, Callable[[Environment, np.random.Generator], Act]] = {
    behaviour.__name__: behaviour
    for behaviour in (uniform_random, correlated_random, scripted_noisy, scripted_hold, scripted_switching, mpc, mpc_noisy)
}


def make_behaviour(name: str, env: Environment, rng: np.random.Generator) -> Act:
    """Make the act function of one episode; raises ValueError for an unknown name."""
    return BEHAVIOURS[one_of(name, BEHAVIOURS, "behaviour")](env, rng)
