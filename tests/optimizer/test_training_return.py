"""Returns of the episodes that are learned from, against sums by hand; moments that run along, against those of everything at once."""

import dataclasses

import pytest
import torch

from pwmlib.model.layers import RunningMoments
from pwmlib.model.world_model import WorldModelConfig
from pwmlib.optimizer.online_robots import OnlinePWM, OnlinePWMConfig
from pwmlib.optimizer.shac import SHAC, SHACConfig
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.training_env import TrainingEnv


def lived(env, steps, seed=0):
    """Rewards [steps, count], whether an episode ended there, and the ages of the episodes at the beginning."""
    generator = torch.Generator().manual_seed(seed)
    rewards, ended = [], []
    for _ in range(steps):
        step = env.step(torch.rand(env.count, env.action_dim, generator=generator) * 2 - 1)
        rewards.append(step.reward.detach())
        ended.append(step.terminated | step.truncated)
    return torch.stack(rewards), torch.stack(ended)


def by_hand(rewards, ended, whole_from_the_start):
    """Returns of the whole episodes that ended, in the order of environments."""
    found = []
    for e in range(rewards.shape[1]):
        total, whole = 0.0, bool(whole_from_the_start[e])
        for t in range(len(rewards)):
            total += float(rewards[t, e])
            if ended[t, e]:
                found += [total] * whole
                total, whole = 0.0, True
    return found


@pytest.mark.parametrize("spread", [False, True])
def test_the_training_return_is_the_mean_over_whole_episodes(spread):
    env = TrainingEnv("hopper", 6, seed=3, episode_length=12)
    env.reset(spread=spread)
    rewards, ended = lived(env, 40)
    returns = by_hand(rewards, ended, [True] + [not spread] * 5)
    assert len(returns) > 12 and env.training_return() == pytest.approx(sum(returns) / len(returns), rel=1e-5)
    assert env.training_return() is None, "none ended since"


def test_it_is_the_same_environment_and_goes_on_from_its_state():
    plain, env, again = (kind("hopper", 6, seed=3, episode_length=12) for kind in (DifferentiableEnv, TrainingEnv, TrainingEnv))
    assert torch.equal(plain.reset(spread=True), env.reset(spread=True))
    for a, b in zip(lived(plain, 7), lived(env, 7), strict=True):
        assert torch.equal(a, b)
    again.reset()
    again.load_state_dict(env.state_dict())
    rest = [lived(e, 30, seed=1)[0] for e in (env, again)]
    assert torch.equal(*rest) and env.training_return() == again.training_return() is not None


def test_a_step_before_any_episode_is_refused():
    env = TrainingEnv("hopper", 2)
    assert env.training_return() is None and env.state_dict()["returns"] == {}
    with pytest.raises(RuntimeError, match="step before reset"):
        env.step(torch.zeros(2, 3))


def test_running_moments_are_those_of_everything_seen():
    g, moments = torch.Generator().manual_seed(0), RunningMoments(dtype=torch.float64)
    batches = [5 + 2 * torch.randn(n, generator=g, dtype=torch.float64) for n in (10, 200, 50)]
    for batch in batches:
        moments.add(batch)
    everything = torch.cat(batches)
    # The first value of the mean, 0, keeps the weight of 1e-4 samples.
    assert float(moments.mean) == pytest.approx(float(everything.mean()), rel=1e-5)
    assert float(moments.std) == pytest.approx(float((everything.var(unbiased=False) + 1e-5).sqrt()), rel=1e-4)


def test_shac_divides_by_the_deviation_of_all_returns_so_far():
    """Twin learners from the same state: the scaled loss times the deviation is the other's times the horizon."""
    small = SHACConfig(updates=8, horizon=6, actor_hidden=(16,), critic_hidden=(16,))
    plain, scaled = (
        SHAC(DifferentiableEnv("hopper", 8, seed=0), c, seed=0) for c in (small, dataclasses.replace(small, return_scaling="running_std"))
    )
    returns = []
    for _ in range(3):
        loss, divided = (float(learner.actor_loss(learner.imagine()).detach()) for learner in (plain, scaled))
        loss *= small.horizon
        returns.append(-loss)
        assert divided * float(scaled.return_moments.std) == pytest.approx(loss, rel=1e-5)
    mean, count = float(scaled.return_moments.mean), float(scaled.return_moments.count)
    assert mean == pytest.approx(sum(returns) / 3, rel=1e-4) and count == pytest.approx(24, abs=1e-3)
    assert plain.return_moments.count < 1, "not looked at without the option"
    scaled.load_state_dict(scaled.state_dict())
    assert float(scaled.return_moments.mean) == mean


def test_running_statistics_follow_the_replay():
    model = WorldModelConfig(latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,), task_dim=0, two_hot=None)
    few = dataclasses.replace(OnlinePWMConfig().actor_critic, updates=3, horizon=16, actor_hidden=(16,), critic_hidden=(16,))
    config = dataclasses.replace(OnlinePWMConfig(), actor_critic=few, model=model, random_steps=20, first_model_updates=1, model_updates=1)
    for statistics in ("first_data", "running"):
        learner = OnlinePWM(DifferentiableEnv("hopper", 4), dataclasses.replace(config, statistics=statistics))
        first = learner.model.obs_mean.clone()
        for _ in range(3):
            learner.update()
        mean, std, reward_mean, reward_std = learner.replay.statistics()
        assert not torch.equal(first, mean), "the replay has grown"
        expected = mean if statistics == "running" else first
        assert torch.equal(learner.model.obs_mean, expected)
        assert torch.equal(learner.world.view.encode(torch.ones(4, 11)), learner.model.encode(torch.ones(4, 11), torch.zeros(4).long()))
        same = (float(learner.model.reward_mean), float(learner.model.reward_std)) == pytest.approx((reward_mean, reward_std))
        assert same == (statistics == "running") and torch.equal(learner.model.obs_std, std) == same
