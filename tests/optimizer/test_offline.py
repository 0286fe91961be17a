"""PWM inside frozen models of one task: termination heads, ensembles that disagree, imagined trajectories that go on."""

import dataclasses

import numpy as np
import pytest
import torch
from test_single_task import SMALL, lived

from pwmlib.data.replay import Replay
from pwmlib.evaluation.predictions import held_out_fit
from pwmlib.model.frozen import EnsembleDynamics, FrozenWorldModel
from pwmlib.model.training import WorldModelTrainer
from pwmlib.model.world_model import WorldModel, world_model_loss
from pwmlib.optimizer.offline_robots import OfflinePWM, OfflinePWMConfig
from pwmlib.optimizer.pwm import PWM, PWMConfig

ENDING = dataclasses.replace(SMALL, termination=True)


def members(count, **changes):
    models = []
    for i in range(count):
        torch.manual_seed(i)
        models.append(WorldModel(4, 2, config=dataclasses.replace(ENDING, **changes)))
        if models[0].encoder is not None:
            models[-1].encoder.load_state_dict(models[0].encoder.state_dict())
        for p in models[-1].parameters():
            if p.abs().max() == 0:
                torch.nn.init.normal_(p, std=0.3)  # last layers start at zero
    return [FrozenWorldModel(m) for m in models]


@pytest.mark.parametrize("residual", [False, True])
def test_an_ensemble_is_the_mean_of_its_members_and_loses_what_they_disagree(residual):
    views = members(3, residual=residual)
    z, a = views[0].encode(torch.randn(6, 4)), torch.rand(6, 2, requires_grad=True)
    plain, wary = EnsembleDynamics(views), EnsembleDynamics(views, pessimism=0.5, usual=0.1)
    following = torch.stack([v.advance(z, a) for v in views])
    torch.testing.assert_close(plain.advance(z, a), following.mean(0))
    rewards = torch.stack([v.reward(z, a) for v in views]).mean(0)
    torch.testing.assert_close(plain.reward(z, a), rewards)
    spread = following.std(0, unbiased=False).mean(-1)
    torch.testing.assert_close(wary.reward(z, a), rewards - 0.5 * spread / 0.1, rtol=1e-4, atol=1e-4)
    assert spread.min() > 1e-3 and torch.autograd.grad(wary.reward(z, a).sum(), a)[0].abs().min() > 0
    expected = torch.stack([v.model.termination_logit(z, torch.tensor(0)) > 0 for v in views]).any(0)
    assert torch.equal(plain.done(z), expected)


def test_wrong_ensembles_are_named():
    views = members(2)
    with pytest.raises(ValueError, match="at least one member"):
        EnsembleDynamics([])
    with pytest.raises(ValueError, match="pessimism=1.0 needs at least 2 members"):
        EnsembleDynamics(views[:1], pessimism=1.0)
    torch.manual_seed(9)
    stranger = FrozenWorldModel(WorldModel(4, 2, config=ENDING))
    with pytest.raises(ValueError, match="encoders differ"):
        EnsembleDynamics([views[0], stranger])
    shifted = members(2)[1]
    shifted.model.obs_mean += 1.0
    with pytest.raises(ValueError, match="statistics of observations differ"):
        EnsembleDynamics([views[0], shifted])
    with pytest.raises(ValueError, match="members=0 is not allowed"):
        OfflinePWM(lived(20), OfflinePWMConfig(members=0))


def test_a_termination_head_learns_which_states_end_an_episode():
    """x' = x + a, and an episode ends beyond 1."""
    replay, generator = Replay(200, 8, 1, 1), torch.Generator().manual_seed(0)
    for _ in range(200):
        x, a = (torch.rand(8, 1, generator=generator) * 4 - 2 for _ in range(2))
        ends = ((x + a) > 1)[:, 0]
        replay.add(x, a, torch.zeros(8), x + a, ends, torch.zeros(8).bool())
    model = WorldModel(1, 1, config=dataclasses.replace(ENDING, residual=True))
    mean, std, *_ = replay.statistics()
    model.set_statistics(mean, std)
    config = OfflinePWMConfig().training
    loss = dataclasses.replace(config.loss, normalise_reward=False)
    trainer = WorldModelTrainer(model, replay, dataclasses.replace(config, updates=600, horizon=1, lr=3e-3, final_lr=3e-4, loss=loss))
    for _ in range(600):
        trainer.update()
    x, view = torch.linspace(-2, 2, 81)[:, None], FrozenWorldModel(model)
    foreseen = view.done(view.advance(view.encode(x), torch.full_like(x, 0.5)))
    assert (foreseen == (x[:, 0] + 0.5 > 1)).float().mean() >= 0.95
    with pytest.raises(ValueError, match="has a termination head, but the data does not say"):
        world_model_loss(model, torch.zeros(2, 3, 1), torch.zeros(1, 3, 1), torch.zeros(1, 3), torch.zeros(3, dtype=torch.long))


class Line:
    """x' = x + 1; an episode ends beyond 3."""

    state_dim, action_dim = 1, 1

    def advance(self, state, action):
        return state + 1 + 0 * action

    def reward(self, state, action, next_state):
        return action.squeeze(-1)

    def done(self, next_state):
        return next_state.squeeze(-1) > 3


def test_imagined_trajectories_go_on_where_they_ended_unless_they_terminated():
    config = PWMConfig(updates=9, horizon=2, batch=200, continued=0.75, actor_hidden=(8,), critic_hidden=(8,))
    learner = PWM(Line(), lambda n, generator: torch.zeros(n, 1), config)
    begun = []
    whole = learner.imagine

    def watched():
        roll = whole()
        begun.append(roll.states[0].flatten())
        return roll

    learner.imagine = watched
    for _ in range(4):
        learner.update()
    shares = [[float((x == v).float().mean()) for v in (0, 2, 4)] for x in begun]
    assert shares[0] == [1, 0, 0]
    assert shares[1][1] == pytest.approx(0.75, abs=0.1), "three quarters go on from 2"
    assert all(s[2] == 0 for s in shares), "beyond 3 they had ended"
    assert shares[2][1] == pytest.approx(0.75 * shares[1][0], abs=0.1)
    again = PWM(Line(), learner.starts, config)
    again.load_state_dict(learner.state_dict())
    a, b = (x.imagine().states for x in (learner, again))
    assert torch.equal(a, b)


def tiny(members=2, **changes):
    config = OfflinePWMConfig()
    few = dataclasses.replace(config.policy, updates=4, actor_hidden=(8,), critic_hidden=(8,), horizon=3, batch=8)
    config = dataclasses.replace(config, model=ENDING, pretraining_updates=3, members=members, pessimism=0.1, policy=few, **changes)
    return OfflinePWM(lived(40), config)


def test_it_trains_its_models_then_a_policy_and_continues_bit_for_bit():
    whole = tiny()
    steps = []
    while whole.step < 4:
        steps.append(whole.step)
        whole.update()
    assert steps == [*range(-6, 0), 0, 1, 2, 3]
    one, two = (t.model for t in whole.trainers)
    assert all(torch.equal(a, b) for a, b in zip(one.encoder.parameters(), two.encoder.parameters(), strict=True))
    assert not torch.equal(one.dynamics[0].weight, two.dynamics[0].weight)
    for cut in (2, 5, 8):
        first, second = tiny(), tiny()
        for _ in range(cut):
            first.update()
        second.load_state_dict(first.state_dict())
        while second.step < 4:
            second.update()
        for a, b in zip(whole.learner.actor.parameters(), second.learner.actor.parameters(), strict=True):
            assert torch.equal(a, b)


def test_held_out_fit_leaves_out_what_follows_an_end():
    """The rewards after an end are nonsense: the figures are those of the slices that go on, alone."""
    (view,), generator = members(1), torch.Generator().manual_seed(0)
    obs, action, reward = torch.randn(6, 200, 4, generator=generator), torch.rand(5, 200, 2, generator=generator), torch.zeros(5, 200)
    reward[:] = action.sum(-1)
    task, goes_on = torch.zeros(200, dtype=torch.long), torch.arange(200) % 3 > 0
    valid = torch.ones(5, 200)
    valid[2:, ~goes_on] = 0.0
    spoiled = reward.masked_fill(valid == 0, torch.nan)
    fits = {}
    for name, slices in {
        "ending": (obs, action, spoiled, task, valid, torch.zeros(5, 200).bool()),
        "all": (obs, action, reward, task),
        "going on": (obs[:, goes_on], action[:, goes_on], reward[:, goes_on], task[goes_on]),
    }.items():
        data = type("Slices", (), {"slices": staticmethod(lambda *_, slices=slices: slices)})
        fits[name] = held_out_fit(view.model, data, horizon=5, batch=200)
    for figure in ("correlation", "slope"):
        assert fits["ending"][f"{figure}_first"] == pytest.approx(fits["all"][f"{figure}_first"])
        assert fits["ending"][f"{figure}_last"] == pytest.approx(fits["going on"][f"{figure}_last"]) != fits["all"][f"{figure}_last"]


def test_a_share_of_the_trajectories_begins_as_episodes_do():
    replay = lived(50)
    obs = replay.start_observations(2000, np.random.default_rng(0), initial_share=0.5)
    first = torch.tensor([t % (5 + e) == 0 for e, t in obs.long().tolist()])
    share = sum(1 / (5 + e) for e in range(3)) / 3
    assert float(first.float().mean()) == pytest.approx(0.5 + 0.5 * share, abs=0.05)
