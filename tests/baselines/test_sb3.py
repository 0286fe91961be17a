"""PPO and SAC of stable-baselines3 on the differentiable environments."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from pwmlib.baselines.sb3 import SB3Env, SB3Learner
from pwmlib.baselines.sb3_config import SB3Config
from pwmlib.errors import NonFiniteError
from pwmlib.sim.env import DifferentiableEnv

TINY = SB3Config(steps=8, hidden=(16,), minibatch=16, epochs=2, batch=16, buffer=400, gradient_steps=2)


def test_steps_are_the_environments_own_and_ends_are_told():
    ours, env = DifferentiableEnv("hopper", 4, seed=3, episode_length=6), SB3Env(DifferentiableEnv("hopper", 4, seed=3, episode_length=6))
    env.seed(3)
    obs = env.reset()
    np.testing.assert_array_equal(obs, ours.reset(seed=3, spread=True).numpy())
    rng, ends = np.random.default_rng(0), 0
    for _ in range(8):
        action = rng.uniform(-1, 1, (4, 3)).astype(np.float32)
        obs, reward, done, infos = env.step(action)
        step = ours.step(torch.from_numpy(action))
        np.testing.assert_array_equal(obs, step.obs.numpy())
        np.testing.assert_array_equal(reward, step.reward.numpy())
        np.testing.assert_array_equal(done, (step.terminated | step.truncated).numpy())
        for i in np.flatnonzero(done):
            np.testing.assert_array_equal(infos[i]["terminal_observation"], step.final_obs[i].numpy())
            assert infos[i]["TimeLimit.truncated"] == bool(step.truncated[i] & ~step.terminated[i])
            ends += 1
    assert ends >= 4
    with pytest.raises(NotImplementedError, match="one batch"):
        env.set_attr("gravity", 0)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_learning_continues_bit_for_bit(algorithm):
    def new():
        return SB3Learner(algorithm, DifferentiableEnv("hopper", 4, seed=0), TINY, seed=0)

    whole, cut, again = new(), new(), new()
    for _ in range(6):
        whole.update()
    for _ in range(4):
        cut.update()
    again.load_state_dict(cut.state_dict())
    for _ in range(2):
        again.update()
    assert whole.step == again.step == 6 and whole.model.num_timesteps == again.model.num_timesteps == 6 * 8 * 4
    for (name, a), b in zip(whole.model.policy.state_dict().items(), again.model.policy.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    obs = torch.randn(5, 11)
    assert torch.equal(whole.actor(obs), again.actor(obs)) and whole.actor(obs).abs().max() <= 1


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_failed_update_puts_everything_back(algorithm):
    twin, learner = (SB3Learner(algorithm, DifferentiableEnv("hopper", 16, seed=0), TINY, seed=0) for _ in range(2))
    name = {"ppo": "loss", "sac": "critic_loss"}[algorithm]
    for updates in (0, 3) if algorithm == "ppo" else (3, 4):  # SAC begins to train later
        while learner.step < updates:
            assert twin.update() == learner.update()
        train = learner.model.train
        learner.model.train = lambda *a, train=train, **k: (train(*a, **k), learner.model.logger.record(f"train/{name}", float("nan")))
        with pytest.raises(NonFiniteError, match=f"update {updates + 1}: the .*loss is nan; the learner is back in the state before it"):
            learner.update()
        learner.model.train = train
    assert twin.update() == learner.update()
    torch.testing.assert_close(twin.model.policy.state_dict(), learner.model.policy.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_learning_rate_falls_in_a_straight_line_and_goes_on_where_it_was(algorithm):
    config = replace(TINY, updates=4, lr=1e-3, final_lr=2e-4)

    def rates(learner, updates):
        found = []
        for _ in range(updates):
            learner.update()
            found += [{group["lr"] for optimiser in learner._optimisers() for group in optimiser.param_groups}]
        return found

    first, again = (SB3Learner(algorithm, DifferentiableEnv("hopper", 16, seed=0), config, seed=0) for _ in range(2))
    told = rates(first, 2)
    again.load_state_dict(first.state_dict())
    told += rates(again, 2)
    assert [len(r) for r in told] == [1] * 4 and [r.pop() for r in told] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4])
    kept = SB3Learner(algorithm, DifferentiableEnv("hopper", 16, seed=0), replace(config, final_lr=None), seed=0)
    assert rates(kept, 3) == [{1e-3}] * 3


def test_the_learner_leaves_the_global_generators_alone():
    learner = SB3Learner("ppo", DifferentiableEnv("hopper", 4, seed=0), TINY, seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    learner.update()
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(learner.normalised, VecNormalize)
    with pytest.raises(ValueError, match="algorithm must be 'ppo' or 'sac', got 'trpo'"):
        SB3Learner("trpo", DifferentiableEnv("hopper", 4, seed=0), TINY)
