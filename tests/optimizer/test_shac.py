"""SHAC: exact continuation, the bookkeeping of episode ends, and learning (the learning curve itself is tested in test_envs)."""

import copy
import dataclasses

import pytest
import torch

from pwmlib.errors import NonFiniteError
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.optimizer.shac import SHAC, SHACConfig
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.training_env import evaluate_policy

SMALL = SHACConfig(updates=8, horizon=6, actor_hidden=(16,), critic_hidden=(16,))


def learner(seed=0, **options):
    return SHAC(DifferentiableEnv("hopper", 8, seed=seed, episode_length=20), SMALL, seed=seed, **options)


def test_continues_bit_identically_from_its_state():
    whole, first = learner(), learner()
    for _ in range(6):
        expected = whole.update()
    for _ in range(3):
        first.update()
    second = learner()
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        found = second.update()
    assert found == expected
    for a, b in zip(whole.actor.state_dict().values(), second.actor.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.dynamics.state, second.dynamics.state)


def test_actor_loss_is_the_discounted_reward_with_values_only_where_an_episode_goes_on():
    agent, seen = learner(), {}
    for _ in range(4):
        roll = agent.imagine()
    loss, kept = agent.actor_loss(roll), {"truncated": roll.truncated, "terminated": roll.terminated}
    seen.update(reward=roll.rewards.detach(), final_obs=roll.reached.detach(), ended=roll.terminated | roll.truncated)
    gamma, expected = SMALL.gamma, torch.zeros(8)
    for e in range(8):
        discount = 1.0
        for t in range(SMALL.horizon):
            expected[e] += discount * seen["reward"][t, e]
            bootstrap = kept["truncated"][t, e] or (t == SMALL.horizon - 1 and not kept["terminated"][t, e])
            if bootstrap:
                expected[e] += discount * gamma * agent.target.value(agent.actor.normalise(seen["final_obs"][t, e][None]))[0].detach()
            discount = 1.0 if seen["ended"][t, e] else discount * gamma
    assert kept["truncated"].any()
    assert float(loss.detach()) == pytest.approx(-float(expected.mean()) / SMALL.horizon, rel=1e-5)


@pytest.mark.parametrize("objective", ["n_step", "td_lambda"])
def test_a_terminal_state_that_is_nan_changes_nothing(objective):
    """Loss, gradient, targets and the critic: V counts as 0 there, whatever the simulator left behind."""
    results = []
    for fill in (0.0, torch.nan):
        agent = SHAC(
            DifferentiableEnv("hopper", 8, seed=0, episode_length=20), dataclasses.replace(SMALL, actor_objective=objective), seed=0
        )
        inner, ends = agent.dynamics.step, iter(torch.rand(SMALL.horizon, 8, generator=torch.Generator().manual_seed(0)) < 0.2)

        def step(action, inner=inner, fill=fill, ends=ends):
            found, over = inner(action), next(ends)
            return found._replace(terminated=over, final_obs=found.final_obs + torch.where(over, fill, 0.0)[:, None])

        agent.dynamics.step = step
        metrics = agent.update()
        results.append((metrics, agent.actor.state_dict(), agent.critics.state_dict()))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("fails", ["actor", "critic"])
def test_a_failed_update_puts_everything_back(fails):
    """Moments of the returns, environments, generator and optimisers too: it goes on as if nothing had happened."""
    config = dataclasses.replace(SMALL, return_scaling="running_std")
    recorded = []
    twin, agent = (SHAC(DifferentiableEnv("hopper", 8, seed=0), config, seed=0, record=r) for r in (None, lambda *x: recorded.append(x)))
    for _ in range(2):
        twin.update()
        agent.update()
        before, step, fit = copy.deepcopy(agent.state_dict()), agent.dynamics.step, agent._fit_critics
        if fails == "actor":
            agent.dynamics.step = lambda a, step=step: (lambda found: found._replace(reward=found.reward * torch.nan))(step(a))
        else:
            agent._fit_critics = lambda roll, fit=fit: fit(dataclasses.replace(roll, states=roll.states * torch.inf))
        with pytest.raises(NonFiniteError, match=f"the {fails} loss is nan; the learner is back in the state before it"):
            agent.update()
        after = agent.state_dict()
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        agent.dynamics.step, agent._fit_critics = step, fit
    assert len(recorded) == 2
    assert agent.update() == twin.update()


def test_reward_scale_scales_what_is_learned_and_not_what_is_recorded():
    rewards = []
    for scale in (1.0, 0.01):
        agent = SHAC(DifferentiableEnv("hopper", 8), SHACConfig(updates=2, horizon=4, reward_scale=scale), seed=0)
        agent.record = lambda roll: rewards.append(roll.rewards)
        agent.update()
    torch.testing.assert_close(rewards[0], rewards[1])


def test_observation_statistics_are_those_of_all_observations():
    actor, g = Actor(3, 1, hidden=(4,), standardise=True), torch.Generator().manual_seed(0)
    batches = [5 + 2 * torch.randn(n, 3, generator=g) for n in (10, 200, 50)]
    for batch in batches:
        actor.moments.add(batch)
    everything = torch.cat(batches)
    torch.testing.assert_close(actor.moments.mean, everything.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actor.moments.variance, everything.var(0, unbiased=False), rtol=1e-3, atol=1e-3)


def test_evaluation_stops_counting_when_an_episode_ends():
    still = evaluate_policy(lambda obs, noise: torch.zeros(len(obs), 3), "hopper", episodes=16)
    assert still.shape == (16,) and (still < 400).all(), "a hopper without torque falls: later episodes must not be added"


def test_a_policy_is_judged_on_the_contacts_that_are_asked_for():
    still = [evaluate_policy(lambda obs, noise: torch.zeros(len(obs), 3), "hopper", episodes=4, stiffness=s) for s in (1.0, 1.0, 4.0)]
    assert torch.equal(still[0], still[1]) and not torch.equal(still[0], still[2])
