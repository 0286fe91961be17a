"""SHAC: exact continuation, the bookkeeping of episode ends, and learning (the learning curve itself is tested in test_envs)."""

import pytest
import torch

from pwmlib.baselines.shac import SHAC, NormalisedActor, SHACConfig, evaluate_policy
from pwmlib.envs import DifferentiableEnv

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
    assert torch.equal(whole.env.state, second.env.state)


def test_actor_loss_is_the_discounted_reward_with_values_only_where_an_episode_goes_on():
    agent, seen = learner(), {}
    agent.record = lambda obs, action, reward, final_obs, *ends: seen.update(reward=reward, final_obs=final_obs, ended=ends[0] | ends[1])
    for _ in range(4):
        loss, kept = agent._actor_loss()
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


def test_reward_scale_scales_what_is_learned_and_not_what_is_recorded():
    rewards = []
    for scale in (1.0, 0.01):
        agent = SHAC(DifferentiableEnv("hopper", 8), SHACConfig(updates=2, horizon=4, reward_scale=scale), seed=0)
        agent.record = lambda obs, action, reward, *rest: rewards.append(reward)
        agent.update()
    torch.testing.assert_close(rewards[0], rewards[1])


def test_observation_statistics_are_those_of_all_observations():
    actor, g = NormalisedActor(3, 1, hidden=(4,)), torch.Generator().manual_seed(0)
    batches = [5 + 2 * torch.randn(n, 3, generator=g) for n in (10, 200, 50)]
    for batch in batches:
        actor.watch(batch)
    everything = torch.cat(batches)
    torch.testing.assert_close(actor.obs_mean, everything.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actor.obs_var, everything.var(0, unbiased=False), rtol=1e-3, atol=1e-3)


def test_evaluation_stops_counting_when_an_episode_ends():
    still = evaluate_policy(lambda obs, noise: torch.zeros(len(obs), 3), "hopper", episodes=16)
    assert still.shape == (16,) and (still < 400).all(), "a hopper without torque falls: later episodes must not be added"


def test_a_policy_is_judged_on_the_contacts_that_are_asked_for():
    still = [evaluate_policy(lambda obs, noise: torch.zeros(len(obs), 3), "hopper", episodes=4, stiffness=s) for s in (1.0, 1.0, 4.0)]
    assert torch.equal(still[0], still[1]) and not torch.equal(still[0], still[2])
