"""TD-MPC2 on a problem whose best action is known, and its parts by hand; masks, continuation, wrong input."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal, TanhTransform

from pwmlib.baselines.tdmpc2 import TDMPC2, TDMPC2Config, TDMPC2Trainer, task_discount
from pwmlib.baselines.tdmpc2_planner import PlanSearch, TDMPC2PlannerConfig
from pwmlib.errors import NonFiniteError
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.layers import NormedLinear
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.online_episodes import policy_actor

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


def trainer(*, termination=False, spectral_norm=False, **changes):
    torch.manual_seed(0)
    model = WorldModel(
        2, 2, tasks=2, action_dims=[1, 1], config=dataclasses.replace(SMALL, termination=termination, spectral_norm=spectral_norm)
    )
    config = TDMPC2Config(**{**vars(CONFIG), **changes})
    return TDMPC2Trainer(model, Follow(), torch.tensor([0.5, 0.5]), config)


@pytest.fixture(scope="module")
def trained():
    learner = trainer()
    for _ in range(CONFIG.updates):
        metrics = learner.update()
    return learner, metrics


@pytest.mark.long
@pytest.mark.parametrize("way", ["prior", "planner"])
def test_it_finds_the_best_action_of_both_tasks(trained, way):
    agent = trained[0].agent
    env = SimpleNamespace(task=SimpleNamespace(obs_dim=2, action_dim=1))
    for task, sign in ((0, 1.0), (1, -1.0)):
        view = FrozenWorldModel(agent.model, task)
        for x in (-0.7, 0.0, 0.6):
            search = PlanSearch(agent, task, 1, 0.5, TDMPC2PlannerConfig(samples=128, elites=16, prior_samples=8), seed=1)
            ways = {"prior": lambda z, noise: agent.policy(z, view.task)[0], "planner": lambda z, noise: search(z[None])[0][0]}  # noqa: B023
            act = policy_actor(ways[way], view, env)
            action = act(np.array([x, 1.0], np.float32), 0)
            assert action.shape == (1,) and action[0] == pytest.approx(sign * x, abs=0.25)


@pytest.mark.long
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


@pytest.mark.long
def test_plans_of_many_states_are_each_as_good_as_one_of_its_own(trained):
    """Searched together: every state has its own best action, an episode that began anew forgets its plan, the others keep theirs."""
    agent = trained[0].agent
    x = torch.tensor([-0.8, -0.3, 0.2, 0.7])
    z = agent.model.encode(torch.stack([x, torch.ones(4)], -1), torch.tensor(1))
    search = PlanSearch(agent, 1, 4, 0.5, TDMPC2PlannerConfig(samples=128, elites=16, prior_samples=8), seed=0)
    action, std = search(z)
    torch.testing.assert_close(search.mean[0, :, 0], -x, atol=0.25, rtol=0.0)
    torch.testing.assert_close(action[:, 0], -x, atol=0.25, rtol=0.0)
    assert not action[:, 1].any() and (std[:, 0] >= 0.05).all()
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


def test_weights_start_as_published():
    """Normal of deviation 0.02, which 2 of either sign cuts off 100 deviations away, biases 0, last layers of rewards and values 0."""
    model = WorldModel(24, 6, tasks=2, config=dataclasses.replace(SMALL, encoder_hidden=(256,), latent_dim=256))
    agent = TDMPC2(model, TDMPC2Config(hidden=(256, 256)))
    weights = [*agent.q.weights[:-1], *(layer.weight for layer in agent.prior), model.encoder[0].weight, model.dynamics[0].weight]
    for w in weights:
        assert w.std().item() == pytest.approx(0.02, rel=0.05) and abs(w.mean().item()) < 0.001, tuple(w.shape)
    zero = [agent.q.weights[-1], model.reward_head[-1].weight, *agent.q.biases, *(layer.bias for layer in agent.prior)]
    assert not any(w.any() for w in zero)
    assert all(torch.equal(a, b) for a, b in zip(agent.q.parameters(), agent.target_q.parameters(), strict=True))


def test_the_planner_acts_with_one_elite_plan_drawn_by_its_weight():
    """Four plans of known value, the best three of them elites: exp(0.5 (value - best)) over its sum."""
    plans, count = torch.tensor([-0.9, -0.2, 0.3, 0.8]), 20_000
    values = torch.tensor([2.0, 1.0, -3.0, 3.0])
    model = SimpleNamespace(
        obs_mean=torch.zeros(1), action_dim=1, action_mask=torch.ones(1, 1), next=lambda z, a, task: z,
        reward=lambda z, a, task, symexp: values[(a - plans).abs().argmin(-1)],
    )  # fmt: skip
    agent = SimpleNamespace(
        model=model, config=TDMPC2Config(), goes_on=lambda z, task: torch.ones(len(z)), value=lambda z, *rest: torch.zeros(len(z)),
        policy=lambda z, task, noise: (plans.repeat(len(z) // 4)[:, None], None),
    )  # fmt: skip
    planner = TDMPC2PlannerConfig(horizon=1, iterations=1, samples=4, prior_samples=4, elites=3)
    action, _ = PlanSearch(agent, 0, count, 0.9, planner, seed=0)(torch.zeros(count, 2))
    share = torch.stack([(action[:, 0] == a).float().mean() for a in plans])
    expected = np.exp(0.5 * (np.array([2.0, 1.0, -np.inf, 3.0]) - 3.0))
    assert share.numpy() == pytest.approx(expected / expected.sum(), abs=0.015) and share.sum() == 1.0


def test_large_actions_are_searched_two_iterations_longer():
    assert [TDMPC2PlannerConfig(iterations=6).searches(n) for n in (3, 19, 20, 152)] == [6, 6, 8, 8]


def test_the_priors_entropy_is_counted_once_for_each_action_entry():
    """Of the Gaussian, by torch's distributions; with the correction for tanh once, and without. Two tasks of one and three entries."""
    torch.manual_seed(0)
    model = WorldModel(2, 3, tasks=2, action_dims=[1, 3], config=SMALL)
    agents = [TDMPC2(model, TDMPC2Config(hidden=(32,), tanh_correction=corrected)) for corrected in (True, False)]
    agents[1].load_state_dict(agents[0].state_dict())
    z, noise = model.encode(torch.randn(2, 2), torch.tensor([0, 1])), torch.randn(2, 3)
    raw_mean, raw_std = agents[0].prior(agents[0].inputs(z, torch.tensor([0, 1]))).chunk(2, -1)
    std = torch.exp(-10 + 6 * (torch.tanh(raw_std) + 1))
    for row, m in ((0, 1), (1, 3)):
        x = (raw_mean + std * noise)[row, :m]
        gaussian = -m * Independent(Normal(raw_mean[row, :m], std[row, :m]), 1).log_prob(x)
        squash = TanhTransform().log_abs_det_jacobian(x, None).sum()
        for agent, expected in zip(agents, (gaussian + squash, gaussian), strict=True):
            torch.testing.assert_close(agent.policy(z, torch.tensor([0, 1]), noise)[1][row], expected, rtol=1e-4, atol=1e-4)


def lively(**changes):
    """A learner whose values differ from the start."""
    learner = trainer(**changes)
    with torch.no_grad():
        for net in (learner.agent.q, learner.agent.target_q):
            net.weights[-1].normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return learner


def test_values_drop_a_hundredth_of_their_first_layer_in_losses_alone():
    agent, task = lively().agent, torch.tensor(0)
    z, action = agent.model.encode(torch.rand(200, 2), task), torch.zeros(200, 2)
    got = agent.values(z, action, task, dropout=torch.Generator().manual_seed(3))
    kept = torch.rand(5, 200, 32, generator=torch.Generator().manual_seed(3)) >= 0.01
    assert (~kept).float().mean().item() == pytest.approx(0.01, abs=0.003)
    x, q = torch.cat([agent.inputs(z, task), action], -1), agent.q
    for i in range(5):
        h = (x @ q.weights[0][i] + q.biases[0][i]) * kept[i] / 0.99
        h = F.mish(F.layer_norm(h, (32,), q.ln_weights[0][i, 0], q.ln_biases[0][i, 0]))
        torch.testing.assert_close(got[i], h @ q.weights[1][i] + q.biases[1][i], rtol=1e-4, atol=1e-5)
    # Plans, and the losses' target values, are those of a learner without dropout; its losses of values and prior are not.
    some, none = lively(dropout=0.5), lively(dropout=0.0)
    first = [learner.update() for learner in (some, none)]
    assert all(first[0][f"{name}_loss"] == first[1][f"{name}_loss"] for name in ("consistency", "reward"))
    assert all(first[0][f"{name}_loss"] != first[1][f"{name}_loss"] for name in ("value", "prior"))
    some.agent.load_state_dict(none.agent.state_dict())
    plans = [
        PlanSearch(learner.agent, 0, 200, 0.5, TDMPC2PlannerConfig(samples=16, elites=4, prior_samples=4))(z) for learner in (some, none)
    ]
    assert torch.equal(plans[0][0], plans[1][0])
    targets = [learner.agent.target_value(z, action, task, torch.tensor([0, 1])) for learner in (some, none)]
    assert torch.equal(*targets)


def test_the_prior_follows_the_values_of_after_their_step():
    learner = lively(dropout=0.0, lr=0.05)
    for name, value in (("_noise", lambda z: torch.zeros(*z.shape[:-1], 2)), ("_pair", lambda: torch.tensor([0, 1]))):
        setattr(learner, name, value)
    learner.prior_optimiser.step = lambda: None
    batch = Follow().slices(64, 3, np.random.default_rng(0))
    learner.data = SimpleNamespace(slices=lambda *_: batch)
    _, latents, task, _ = learner._model_losses()
    before = learner._prior_loss(latents, task, 1.0)[0].item()
    said = learner.update()["prior_loss"]
    learner.scale = torch.ones(())
    assert said == pytest.approx(learner._prior_loss(latents, task, 1.0)[0].item(), rel=1e-5)
    assert abs(said - before) > 0.01 * abs(before)


def test_a_prior_that_fails_after_the_models_step_leaves_nothing_changed(monkeypatch):
    learner, whole = lively(), lively()
    for one in (learner, whole):
        one.update()
    before = copy.deepcopy(learner.state_dict())
    with monkeypatch.context() as patch:
        patch.setattr(learner.agent, "value", lambda z, *rest, **_: torch.full(z.shape[:-1], torch.nan) * z.sum(-1))
        with pytest.raises(NonFiniteError, match="the prior loss is nan"):
            learner.update()
    after = learner.state_dict()
    assert all(torch.equal(before["agent"][name], p) for name, p in after["agent"].items()) and torch.equal(before["scale"], after["scale"])
    whole.update()
    learner.update()
    assert all(torch.equal(a, b) for a, b in zip(whole.agent.parameters(), learner.agent.parameters(), strict=True))


@pytest.mark.parametrize("hidden", [(32,), ()])
def test_the_spectral_norm_of_a_model_follows_its_weights(hidden):
    learner = trainer(spectral_norm=True, hidden=hidden, lr=0.01)
    for _ in range(40):
        learner.update()
    layers = [m for m in learner.agent.model.dynamics.modules() if isinstance(m, NormedLinear)]
    largest = [float(torch.linalg.matrix_norm(layer.weight, 2)) for layer in layers]
    assert largest and max(abs(s - 1) for s in largest) < 0.05, largest


def test_ends_weigh_alike_at_every_step_and_an_untrained_head_sees_none():
    """Its head's last layer starts at 0, so each end costs log 2; the other losses fall as rho^t."""
    learner = trainer(termination=True)
    learner.data = Falling()
    valid = Falling().slices(64, 3, np.random.default_rng(0))[4]
    assert learner.update()["termination_loss"] == pytest.approx(np.log(2) * valid.mean().item(), rel=1e-5)
    fresh, task = trainer(termination=True).agent, torch.tensor(0)
    assert fresh.goes_on(torch.rand(3, 16), task).tolist() == [1.0, 1.0, 1.0]


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
