"""TD-MPC2 on a problem whose best action is known; masks, continuation, wrong input."""

import dataclasses

import numpy as np
import pytest
import torch

from pwmlib.baselines.tdmpc2 import TDMPC2, TDMPC2Config, TDMPC2Trainer, task_discount
from pwmlib.baselines.tdmpc2_planner import PlanSearch, TDMPC2Planner, TDMPC2PlannerConfig, prior_actor
from pwmlib.pwm import NonFiniteError
from pwmlib.world_model import WorldModel, WorldModelConfig

SMALL = WorldModelConfig(latent_dim=16, encoder_hidden=(32,), dynamics_hidden=(32,), reward_hidden=(32,), task_dim=4)
CONFIG = TDMPC2Config(updates=1500, batch=64, lr=1e-3, hidden=(32,), encoder_lr_scale=1.0, reward_coef=1.0, value_coef=1.0, tau=0.05)


class Follow:
    """Two tasks: x' is random, the reward 2 - 2 (a - x)^2 or 2 - 2 (a + x)^2; of the two action entries one counts."""

    def slices(self, batch, horizon, rng):
        x = rng.uniform(-1, 1, (horizon + 1, batch)).astype(np.float32)
        task = rng.integers(2, size=batch)
        action = rng.uniform(-1, 1, (horizon, batch, 2)).astype(np.float32)
        action[..., 1] = 0
        reward = 2 - 2 * (action[..., 0] - np.where(task == 0, 1, -1) * x[:-1]) ** 2
        obs = np.stack([x, np.ones_like(x)], -1)
        return tuple(torch.from_numpy(v) for v in (obs, action, reward.astype(np.float32), task))


class Poisoned(Follow):
    def slices(self, batch, horizon, rng):
        obs, *rest = super().slices(batch, horizon, rng)
        return torch.full_like(obs, torch.nan), *rest


def trainer(*, termination=False, **changes):
    torch.manual_seed(0)
    model = WorldModel(2, 2, tasks=2, action_dims=[1, 1], config=dataclasses.replace(SMALL, termination=termination))
    config = TDMPC2Config(**{**vars(CONFIG), **changes})
    return TDMPC2Trainer(model, Follow(), torch.tensor([0.5, 0.5]), config)


@pytest.fixture(scope="module")
def trained():
    learner = trainer()
    for _ in range(CONFIG.updates):
        metrics = learner.update()
    return learner, metrics


@pytest.mark.parametrize("way", ["prior", "planner"])
def test_it_finds_the_best_action_of_both_tasks(trained, way):
    agent = trained[0].agent
    for task, sign in ((0, 1.0), (1, -1.0)):
        for x in (-0.7, 0.0, 0.6):
            if way == "prior":
                mode = prior_actor(agent, task, 2, 1)
                act = lambda obs, step: mode(obs[None], step)[0]  # noqa: B023, E731
            else:
                act = TDMPC2Planner(agent, task, 2, 1, 0.5, TDMPC2PlannerConfig(samples=128, elites=16, prior_samples=8), seed=1)
            action = act(np.array([x, 1.0], np.float32), 0)
            assert action.shape == (1,) and action[0] == pytest.approx(sign * x, abs=0.25)


def test_values_are_those_of_the_policy(trained):
    """States do not depend on actions here, so the value is the reward now and gamma / (1 - gamma) times the policy's mean reward."""
    learner, metrics = trained
    agent = learner.agent
    obs, task = torch.tensor([[0.3, 1.0], [-0.5, 1.0]]), torch.tensor([0, 1])
    z = agent.model.encode(obs, task)
    action, _ = agent.policy(z, task)
    value = agent.value(z, action, task, torch.tensor([0, 1]))
    x = torch.rand(4000) * 2 - 1
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    everywhere = agent.model.encode(torch.stack([x, torch.ones_like(x)], -1), torch.tensor(0))
    acted, _ = agent.policy(everywhere, torch.tensor(0), noise)
    later = (2 - 2 * (acted[:, 0] - x).square()).mean()
    expected = 2 - 2 * (action[:, 0] - torch.tensor([0.3, 0.5])).square() + later
    torch.testing.assert_close(value, expected, rtol=0.15, atol=0.0)
    assert metrics["value_scale"] >= 1.0 and bool((action[:, 1] == 0).all())


def test_plans_of_many_states_are_each_as_good_as_one_of_its_own(trained):
    """Searched together: every state has its own best action, an episode that began anew forgets its plan, the others keep theirs."""
    agent = trained[0].agent
    x = torch.tensor([-0.8, -0.3, 0.2, 0.7])
    z = agent.model.encode(torch.stack([x, torch.ones(4)], -1), torch.tensor(1))
    search = PlanSearch(agent, 1, 4, 0.5, TDMPC2PlannerConfig(samples=128, elites=16, prior_samples=8), seed=0)
    mean, std = search(z)
    torch.testing.assert_close(mean[:, 0], -x, atol=0.25, rtol=0.0)
    assert not mean[:, 1].any() and (std[:, 0] >= 0.05).all()
    kept = search.mean[:, 1].clone()
    search.forget(torch.tensor([True, False, False, True]))
    assert not search.mean[:, [0, 3]].any() and torch.equal(search.mean[:, 1], kept)


class Falling(Follow):
    """The reward is 1; an episode ends when the first entry of the action is above 0, which the next observation shows."""

    def slices(self, batch, horizon, rng):
        action = rng.uniform(-1, 1, (horizon, batch, 2)).astype(np.float32)
        terminated = action[..., 0] > 0
        obs = np.zeros((horizon + 1, batch, 2), np.float32)
        obs[1:, :, 0], obs[0, :, 1] = terminated, 1.0
        obs[1:, :, 1] = 1.0
        ended = np.concatenate([np.zeros((1, batch)), np.cumsum(terminated, 0)[:-1]]) > 0
        obs[1:][ended], action[ended] = 9.0, 0.9  # what comes after the end must count for nothing
        reward, task = np.where(ended, -50.0, 1.0).astype(np.float32), np.zeros(batch, np.int64)
        arrays = (obs, action, reward, task, (~ended).astype(np.float32), terminated & ~ended)
        return tuple(torch.from_numpy(np.ascontiguousarray(v)) for v in arrays)


def test_an_episodes_end_has_no_value_beyond_it_and_is_recognised():
    learner = trainer(updates=800, termination=True, horizon=2)
    learner.data = Falling()
    learner.discounts = torch.tensor([0.8, 0.8])
    for _ in range(800):
        learner.update()
    agent, task = learner.agent, torch.tensor(0)
    z = agent.model.encode(torch.tensor([[0.0, 1.0]]), task).expand(2, -1)
    actions = torch.tensor([[0.7, 0.0], [-0.7, 0.0]])
    assert agent.goes_on(agent.model.next(z, actions, task), task).tolist() == [0.0, 1.0]
    falls, goes_on = agent.value(z, actions, task, torch.tensor([0, 1])).tolist()
    assert falls == pytest.approx(1.0, abs=0.3), "the last reward and nothing after it"
    assert goes_on == pytest.approx(5.0, rel=0.25), "1 / (1 - 0.8): the prior has learned not to fall"
    with pytest.raises(ValueError, match="has a termination head, but the data does not say"):
        trainer(termination=True).update()


def test_it_continues_bit_for_bit_and_targets_follow():
    whole, first = trainer(), trainer()
    start = [p.clone() for p in whole.agent.target_q.parameters()]
    for _ in range(3):
        whole.update()
        first.update()
    for p, slow, fast in zip(start, whole.agent.target_q.parameters(), whole.agent.q.parameters(), strict=True):
        assert (slow - p).abs().max() <= (fast - p).abs().max() + 1e-7
    second = trainer()
    second.load_state_dict(first.state_dict())
    whole.update()
    second.update()
    for a, b in zip(whole.agent.parameters(), second.agent.parameters(), strict=True):
        assert torch.equal(a, b)


def test_discounts_are_the_published_ones_and_bad_input_is_named():
    assert task_discount(500) == pytest.approx(0.99) and task_discount(100) == pytest.approx(0.95)
    with pytest.raises(ValueError, match=r"discounts must have shape \[2\], got \(3,\)"):
        TDMPC2Trainer(WorldModel(2, 2, tasks=2, config=SMALL), Follow(), torch.ones(3))
    with pytest.raises(ValueError, match="needs a two-hot reward head"):
        TDMPC2(WorldModel(2, 2, config=WorldModelConfig(**{**vars(SMALL), "two_hot": None})))
    learner = trainer()
    learner.data = Poisoned()
    before = [p.clone() for p in learner.agent.parameters()]
    with pytest.raises(NonFiniteError, match="the value targets is nan"):
        learner.update()
    assert all(torch.equal(a, b) for a, b in zip(before, learner.agent.parameters(), strict=True))
