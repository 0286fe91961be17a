"""Policies that are held near the data's good actions: what they are held to, how firmly, and what of it names a run."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from companion.mt80.anchored import Anchor, AnchoredPWM, Shown, shown
from companion.mt80.parameters import MultitaskParameters
from companion.mt80.scales import MULTITASK_SCALES
from companion.mt80.shipped_model import SHIPPED, Artefacts
from companion.mt80.stages import MultitaskExperiment
from companion.running.parameters import ParameterError
from pwmlib.data import Episode, EpisodeStore
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.tasks import task

NETS = {"actor_hidden": (32,), "critic_hidden": (16,), "horizon": 3, "batch": 8, "actor_lr": 3e-3}


def shards(lengths=(6, 4)):
    """Two shards with two episodes each; an episode's rows and its actions say which it is, and its return is its number."""
    made = []
    for s, length in enumerate(lengths):
        rows = np.full((2, 7, 3 + 2 + 1), np.nan, np.float32)
        for e in range(2):
            number = 2 * s + e
            rows[e, : length + 1, :3] = number
            rows[e, 1 : length + 1, 3:5] = number / 10
            rows[e, 1 : length + 1, -1] = number / length
        made.append(rows)
    return made


def test_the_steps_of_all_episodes_are_read_but_none_from_behind_an_end():
    data = shown(shards(), 3, 1.0)
    assert data.obs.shape == (20, 3) and data.action.shape == (20, 2) and torch.isfinite(data.obs).all()
    torch.testing.assert_close(data.action, data.obs[:, :2] / 10)
    number = data.obs[:, 0]
    returns = torch.arange(4.0)
    wanted = torch.exp((returns - returns.mean()) / returns.std(unbiased=False))
    torch.testing.assert_close(data.weight, wanted[number.long()])
    assert torch.bincount(number.long()).tolist() == [6, 6, 4, 4]
    assert shown(shards(), 3, 0.0).weight.eq(1).all()


def test_shards_of_any_length_a_rare_good_episode_and_more_steps_than_are_kept(monkeypatch):
    short = [shards()[0], shards()[1][:, :5]]
    assert len(shown(short, 3, 1.0).obs) == 20 and torch.equal(shown(short, 3, 1.0).weight, shown(shards(), 3, 1.0).weight)
    rare = [np.concatenate([np.repeat(shards()[0][:1], 2000, 0), shards()[0][1:]])]
    weight = shown(rare, 3, 7.0).weight
    assert torch.isfinite(weight).all() and float(weight[-6:].sum() / weight.sum()) > 0.99
    monkeypatch.setattr("companion.mt80.anchored.MOST", 12)
    few = shown(shards(), 3, 1.0)
    assert len(few.obs) in (8, 10, 12) and torch.isin(few.weight, shown(shards(), 3, 1.0).weight).all()


def test_the_imitation_holds_at_the_first_update_where_observations_are_standardised():
    found, _ = learner(imitation=300, normalise_obs=True)
    before = float(found.distance().detach())
    found.imagine()
    found.actor.moments.add(found.imagine().states.detach())
    assert float(found.distance().detach()) < 2 * before + 0.02


def test_padded_actions_that_reach_the_dynamics_are_held_to_zero():
    config = WorldModelConfig(latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,), apply_action_mask=False)
    view, obs = FrozenWorldModel(WorldModel(3, 4, config=config)), torch.randn(50, 3)
    found = AnchoredPWM(view, PWMConfig(**NETS), Anchor(imitation=1), Shown(obs, torch.ones(50, 2), torch.ones(50)))
    with torch.no_grad():
        found.actor.mean[-1].weight.zero_()
        found.actor.mean[-1].bias.fill_(10.0)
    assert float(found.distance().detach()) == pytest.approx(2.0, rel=1e-4), "two actions right, two that are padding at 1 instead of 0"


def learner(climb=10.0, imitation=600, seed=0, **changes):
    torch.manual_seed(0)
    model = WorldModel(3, 2, config=WorldModelConfig(latent_dim=16, encoder_hidden=(16,), dynamics_hidden=(16,), reward_hidden=(16,)))
    torch.nn.init.normal_(model.reward_head[-1].weight, std=0.5)
    view = FrozenWorldModel(model)
    obs = torch.randn(300, 3)
    data = Shown(obs, torch.tanh(2 * obs[:, :2]), (obs[:, 2] > 0).float() + 0.1)
    config = PWMConfig(**{**NETS, **changes})
    return AnchoredPWM(view, config, Anchor(climb=climb, imitation=imitation, batch=64), data, seed=seed), data


def test_a_policy_begins_as_an_imitation():
    begun, _ = learner(imitation=1)
    taught, data = learner(imitation=700)
    spread = float(data.action.var(0).sum())
    assert float(begun.distance().detach()) > 0.6 * spread > 6 * float(taught.distance().detach())


def test_the_loss_is_the_distance_less_the_return_in_units_of_its_own_size():
    found, _ = learner(climb=3.0, imitation=5)
    roll, state = found.imagine(), found.generator.get_state()
    returns = found.config.returns(roll, found.value)
    loss = found.actor_loss(roll)
    found.generator.set_state(state)
    expected = found.distance() - 3.0 * returns.mean() / returns.abs().mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    names = [p for p in found.actor.mean.parameters() if p.dim() > 1]
    ours = torch.autograd.grad(loss, names, retain_graph=True)
    found.generator.set_state(state)
    theirs = torch.autograd.grad(found.distance() - 3.0 * returns.mean() / float(returns.abs().mean()), names)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_firmer_anchor_stays_nearer_and_promises_less():
    ends = {}
    for climb in (0.1, 100.0):
        found, _ = learner(climb=climb, updates=25)
        for _ in range(25):
            found.update()
        roll = found.imagine()
        ends[climb] = float(found.distance().detach()), float(roll.rewards.detach().mean())
    assert ends[0.1][0] < 0.5 * ends[100.0][0] and ends[0.1][1] < ends[100.0][1]


def test_it_continues_to_the_bit():
    first, _ = learner(imitation=20, updates=6)
    for _ in range(3):
        first.update()
    saved = copy.deepcopy(first.state_dict())
    second, _ = learner(imitation=20, updates=6)
    second.load_state_dict(saved)
    for _ in range(3):
        first.update(), second.update()
    for a, b in zip(first.actor.parameters(), second.actor.parameters(), strict=True):
        assert torch.equal(a, b)


def test_good_episodes_are_imitated_and_all_states_are_imagined_from():
    found, data = learner(imitation=1)
    found.generator.manual_seed(0)
    begins = torch.cat([found.imagine().states[0] for _ in range(300)])
    part = lambda states: (torch.cdist(states, found._states).argmin(1)[:, None] == torch.nonzero(data.weight > 1)[:, 0]).any(1)  # noqa: E731
    assert float(part(begins).float().mean()) == pytest.approx(float((data.weight > 1).float().mean()), abs=0.05)
    always = Shown(data.obs, torch.where(data.weight[:, None] > 1, 0.8, -0.8).expand(-1, 2), data.weight)
    held = AnchoredPWM(found.dynamics, PWMConfig(**NETS), Anchor(imitation=1, batch=4000), always)
    with torch.no_grad():
        held.actor.mean[-1].weight.zero_()
        held.actor.mean[-1].bias.fill_(10.0)  # always 1
    good = float(data.weight[data.weight > 1].sum() / data.weight.sum())
    assert float(held.distance().detach()) == pytest.approx(2 * (good * 0.2**2 + (1 - good) * 1.8**2), rel=0.1)


def test_the_anchor_names_a_run_and_its_absence_names_it_as_before(tmp_path):
    scale, t = MULTITASK_SCALES["quick"], task("mw-reach")
    rows = np.zeros((t.decisions + 1, t.obs_dim + t.action_dim + 1), np.float32)
    EpisodeStore(tmp_path, t).write("a-00000", [Episode(rows, "scripted_hold", 0, True, True)])
    experiment = MultitaskExperiment((t,), scale, 1, tmp_path, tmp_path, device="cpu", workers=1, shipped=Artefacts(SHIPPED))
    assert "anchor" not in experiment.policy_run(0, 0).params
    with_ = [dataclasses.replace(experiment, scale=dataclasses.replace(scale, anchor=Anchor(climb=c))) for c in (10.0, 11.0)]
    assert len({e.policy_run(0, 0).folder for e in (experiment, *with_)}) == 3
    assert "episodes" in with_[0].cost() and "episodes" not in experiment.cost(), "the shipped model comes without them"


def test_one_parameter_of_the_notebook_holds_the_policies_and_its_numbers_can_be_changed():
    cell = {"tasks": 1, "policies": "anchored", "overrides": {"anchor.climb": 2.5}}
    parameters = MultitaskParameters.validate_cell(defaults() | cell)
    assert parameters.scaled().anchor == Anchor(climb=2.5) and MultitaskParameters.validate_cell(defaults()).scaled().anchor is None
    for more in ({"overrides": {"anchor.climb": 2.5}}, {"policies": "anchored", "overrides": {"anchor": None}},
                 {"policies": "anchored", "variant": "released"}):  # fmt: skip
        with pytest.raises(ParameterError, match="policies"):
            MultitaskParameters.validate_cell(defaults() | more)
    with pytest.raises(ParameterError, match="climb"):
        MultitaskParameters.validate_cell(defaults() | {"policies": "anchored", "overrides": {"anchor.climb": -1}})


def defaults():
    return {name: field.default for name, field in MultitaskParameters.model_fields.items()}
