"""Gradient estimators against closed forms, finite differences, one backward pass a sample, and each other."""

import math

import pytest
import torch
from torch import nn

from pwmlib.estimators import (
    confidence_alpha,
    first_order,
    flat_parameters,
    gradient_fidelity,
    gradient_statistics,
    horizon_table,
    mix,
    parameter_smoothing,
    reward_gradients,
    total_propagation,
    variance_optimal_alpha,
    zeroth_order,
)
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.sim.closed_form import CartpoleSwingup
from pwmlib.sim.env import EnvDynamics

F64 = torch.float64


class Linear:
    """s' = A s + B a, reward -(s'Qs' + r a^2); every gradient is known."""

    state_dim, action_dim = 2, 1

    def __init__(self, ends_above=None):
        self.a = torch.tensor([[1.0, 0.1], [-0.1, 0.95]], dtype=F64)
        self.b = torch.tensor([[0.0], [0.1]], dtype=F64)
        self.ends_above = ends_above

    def advance(self, state, action):
        return state @ self.a.T + action @ self.b.T

    def reward(self, state, action, next_state):
        return -next_state.square().sum(-1) - 0.1 * action.square().sum(-1)

    def done(self, next_state):
        return None if self.ends_above is None else next_state[..., 0] > self.ends_above


class Flat(Linear):
    """The same world behind a wall of no gradient."""

    def advance(self, state, action):
        return super().advance(state.detach(), action.detach())


class GaussianLinear(nn.Module):
    """a = K s + std e, without squashing."""

    def __init__(self, std=0.3):
        super().__init__()
        self.gain = nn.Linear(2, 1, bias=False, dtype=F64)
        with torch.no_grad():
            self.gain.weight.copy_(torch.tensor([[-0.4, -0.7]]))
        self.register_buffer("std", torch.tensor([std], dtype=F64))

    def mean(self, state):
        return self.gain(state)

    def forward(self, state, noise=None):
        return self.mean(state) + (0.0 if noise is None else self.std * noise)


def problem(count=64, steps=12, seed=0, **options):
    g = torch.Generator().manual_seed(seed)
    start = torch.randn(count, 2, generator=g, dtype=F64)
    noise = torch.randn(steps, count, 1, generator=g, dtype=F64)
    return Linear(**options), GaussianLinear(), start, noise


def one_by_one(dynamics, policy, start, noise, horizon, gamma, *, detach=False):
    """The way of the released script: one rollout and one backward pass for each sample."""
    rows, values = [], []
    for i in range(len(start)):
        state, total, alive = start[i : i + 1], 0.0, 1.0
        for t in range(horizon):
            action = policy(state.detach() if detach else state, noise[t, i : i + 1])
            following = dynamics.advance(state, action)
            total = total + alive * gamma**t * dynamics.reward(state, action, following)
            done = dynamics.done(following)
            alive = alive * (1.0 if done is None else float(~done))
            state = following
        gradients = torch.autograd.grad(total.sum(), list(policy.parameters()), allow_unused=True)
        zeros = [torch.zeros_like(p) if x is None else x for x, p in zip(gradients, policy.parameters(), strict=True)]
        rows.append(torch.cat([x.flatten() for x in zeros]))
        values.append(float(total.detach()))
    return torch.stack(rows), torch.tensor(values)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("ends_above", [None, 0.5])
def test_first_order_is_one_backward_pass_per_sample_at_every_horizon(detach, ends_above):
    world, policy, start, noise = problem(count=6, steps=7, ends_above=ends_above)
    found = first_order(world, policy, start, noise, gamma=0.9, detach_policy_input=detach)
    for k, horizon in enumerate(found.horizons):
        expected, values = one_by_one(world, policy, start, noise, horizon, 0.9, detach=detach)
        torch.testing.assert_close(found.at(horizon), expected)
        torch.testing.assert_close(found.values[k].float(), values)


def test_first_order_of_a_network_on_closed_form_cartpole():
    world = CartpoleSwingup()
    torch.manual_seed(0)
    policy = Actor(world.state_dim, world.action_dim, hidden=(16, 8))
    start, noise = world.reset(5), torch.randn(6, 5, world.action_dim)
    found = first_order(world, policy, start, noise, horizons=[1, 4, 6])
    for horizon in (1, 4, 6):
        expected, _ = one_by_one(world, policy, start, noise, horizon, 1.0)
        torch.testing.assert_close(found.at(horizon).float(), expected, atol=1e-4, rtol=1e-3)


def test_first_order_through_the_simulator():
    world = EnvDynamics("hopper", 8)
    torch.manual_seed(0)
    policy = Actor(world.state_dim, world.action_dim, hidden=(16,))
    start, noise = world.reset(), torch.randn(4, 8, world.action_dim)
    found = first_order(world, policy, start, noise, horizons=[2, 4])
    state, total = start, 0.0
    for e in noise:
        action = policy(state, e)
        following = world.advance(state, action)
        total, state = total + world.reward(state, action, following).sum(), following
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(total, list(policy.parameters()))])
    torch.testing.assert_close(found.at(4).sum(0).float(), expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))


def test_first_order_matches_finite_differences_of_the_mean_return():
    world, policy, start, noise = problem(count=16, steps=10)
    found = first_order(world, policy, start, noise, gamma=0.95, horizons=[10])
    direction, eps = torch.tensor([[0.6, -0.8]], dtype=F64), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            policy.gain.weight += sign * eps * direction
        values.append(first_order(world, policy, start, noise, gamma=0.95, horizons=[10]).values[0].mean())
        with torch.no_grad():
            policy.gain.weight -= sign * eps * direction
    numeric = float(values[0] - values[1]) / (2 * eps)
    assert numeric == pytest.approx(float(found.at(10).mean(0) @ direction[0]), rel=1e-6)


def exact_gradient(world, policy, gamma, steps):
    """d E J / d K of the linear problem: moments of the state are propagated in closed form, differentiated by autograd."""
    k = policy.gain.weight.detach().clone().requires_grad_()
    second, total = torch.eye(2, dtype=F64), 0.0
    variance = policy.std**2
    for t in range(steps):
        closed = world.a + world.b @ k
        after = closed @ second @ closed.T + variance * world.b @ world.b.T
        total = total + gamma**t * (-torch.trace(after) - 0.1 * ((k @ second @ k.T).sum() + variance))
        second = after
    return torch.autograd.grad(total.sum(), k)[0].flatten()


@pytest.mark.parametrize("estimator", ["first", "none", "mean", "reward_to_go", "value", "smoothing", "propagation"])
def test_every_estimator_has_the_exact_mean_within_its_standard_error(estimator):
    world, _, start, noise = problem(count=40_000, steps=6, seed=1)
    policy = GaussianLinear(std=2.0)
    exact = exact_gradient(world, policy, 0.9, 6)
    g = torch.Generator().manual_seed(5)
    if estimator == "first":
        samples = first_order(world, policy, start, noise, gamma=0.9, horizons=[6]).at(6)
    elif estimator == "smoothing":
        directions = torch.randn(len(start), 2, generator=g, dtype=F64)
        _, samples = parameter_smoothing(world, policy, start, noise, sigma=0.02, directions=directions, gamma=0.9)
    elif estimator == "propagation":
        xi = torch.randn(6, len(start), 2, generator=g, dtype=F64)
        samples, shares = total_propagation(world, policy, start, noise, state_noise=xi, state_std=1e-3, gamma=0.9)
        assert (shares < 0.01).all(), "on a smooth problem with little noise the first-order estimate must win"
    else:
        baseline = (lambda s: -3.0 * s.square().sum(-1)) if estimator == "value" else estimator
        samples = zeroth_order(world, policy, start, noise, gamma=0.9, horizons=[6], baseline=baseline).at(6)
    error = (samples.mean(0) - exact) / (samples.std(0) / math.sqrt(len(samples)))
    assert error.abs().max() < 4.0, f"{estimator}: {error.tolist()} standard errors from the exact gradient"
    assert float((samples.std(0) / math.sqrt(len(samples)) / exact.abs()).max()) < 0.5, "too noisy to say anything"


def test_baselines_lower_the_variance():
    world, policy, start, noise = problem(count=4000, steps=10)
    variance = {
        name: gradient_statistics(zeroth_order(world, policy, start, noise, horizons=[10], baseline=name).at(10), resamples=0).variance
        for name in ("none", "mean", "reward_to_go")
    }
    assert variance["reward_to_go"] < variance["mean"] < variance["none"]


def test_zeroth_order_needs_no_gradient_and_first_order_says_that_it_does():
    _, policy, start, noise = problem(count=8, steps=3)
    assert torch.isfinite(zeroth_order(Flat(), policy, start, noise, horizons=[3]).at(3)).all()
    with pytest.raises(ValueError, match=r"Flat\.advance gives no gradient: a first-order estimator needs differentiable dynamics"):
        first_order(Flat(), policy, start, noise)


def test_statistics_of_a_known_distribution():
    g = torch.Generator().manual_seed(0)
    mean, std = torch.tensor([1.0, 0.0, -2.0], dtype=F64), torch.tensor([1.0, 2.0, 0.5], dtype=F64)
    samples = mean + std * torch.randn(50_000, 3, generator=g, dtype=F64)
    found = gradient_statistics(samples, reference=mean, resamples=50)
    assert found.variance == pytest.approx(5.25, rel=0.02) and found.mean_variance == pytest.approx(1.75, rel=0.02)
    assert found.esnr == pytest.approx(5 / 5.25, rel=0.02) and found.esnr_released == pytest.approx((1 + 0 + 16) / 3, rel=0.02)
    assert found.bias_norm < 4 * found.bias_noise
    for name, (low, high) in found.intervals.items():
        assert low <= getattr(found, name) <= high, name


def test_finite_sample_bias_of_the_squared_mean_is_removed():
    g = torch.Generator().manual_seed(0)
    groups = 0.2 + torch.randn(4000, 10, 4, generator=g, dtype=F64)
    raw, unbiased = (
        sum(getattr(gradient_statistics(group, resamples=0), name) for group in groups) / len(groups)
        for name in ("squared_norm", "esnr_unbiased")
    )
    assert raw == pytest.approx(4 * 0.04 + 4 / 10, rel=0.03), "raw: signal plus variance / N"
    truth = 4 * 0.04 / 4
    assert unbiased == pytest.approx(truth, abs=0.02)


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say():
    g = torch.Generator().manual_seed(0)
    covered = 0
    for i in range(120):
        samples = 1.0 + torch.randn(60, 5, generator=g, dtype=F64)
        low, high = gradient_statistics(samples, resamples=200, seed=i).intervals["variance"]
        covered += low <= 5.0 <= high
    assert 0.85 <= covered / 120 <= 1.0


def test_raw_and_unbiased_ratio_share_an_interval_that_covers_the_truth_in_any_dimension():
    """30 components of which each has the ratio 0.02: the bias of the raw ratio, 1 / N, is half of it."""
    g = torch.Generator().manual_seed(0)
    covered = {"esnr": 0, "esnr_unbiased": 0, "esnr_released": 0, "squared_norm": 0}
    for _ in range(150):
        found = gradient_statistics(0.02**0.5 + torch.randn(100, 30, generator=g, dtype=F64), resamples=100)
        assert found.intervals["esnr"] == pytest.approx(found.intervals["esnr_unbiased"], abs=1e-12)
        for name in covered:
            low, high = found.intervals[name]
            covered[name] += low <= {"squared_norm": 30}.get(name, 1) * 0.02 <= high
    assert min(covered.values()) >= 0.9 * 150, covered


def test_mixture_weights_are_those_of_the_closed_form():
    g = torch.Generator().manual_seed(0)
    shared = torch.randn(200_000, 3, generator=g, dtype=F64)
    first = 1.0 + shared + 0.5 * torch.randn(shared.shape, generator=g, dtype=F64)
    zeroth = 1.0 + shared + 2.0 * torch.randn(shared.shape, generator=g, dtype=F64)
    alpha = variance_optimal_alpha(first, zeroth)
    assert alpha == pytest.approx(4 / 4.25, abs=0.01)
    best = mix(first, zeroth, alpha).var(0).sum()
    assert all(best <= mix(first, zeroth, a).var(0).sum() + 1e-9 for a in (0.0, 0.5, 0.9, 1.0))


def test_confidence_limits_the_share_of_a_biased_first_order_estimate():
    g = torch.Generator().manual_seed(0)
    zeroth = 1.0 + 3.0 * torch.randn(20_000, 2, generator=g, dtype=F64)
    biased = torch.zeros(20_000, 2, dtype=F64) + 0.1 * torch.randn(20_000, 2, generator=g, dtype=F64)
    assert variance_optimal_alpha(biased, zeroth) > 0.95
    limited = confidence_alpha(biased, zeroth, tolerance=0.4)
    eps = math.sqrt(float(zeroth.var(0).sum()) / (20_000 * 0.05))
    assert 0 < limited < 0.5 and limited * math.sqrt(2) <= 0.4 - eps + 0.05
    assert confidence_alpha(biased, zeroth, tolerance=0.01) == 0.0
    assert confidence_alpha(zeroth + 0.0, zeroth, tolerance=5.0) == 1.0


class Chaotic(Linear):
    """A coupled logistic-like map: first-order gradients explode with the horizon."""

    def advance(self, state, action):
        x = state + 0.05 * action
        return torch.sin(3.0 * x) + 0.3 * x.flip(-1)


def test_total_propagation_turns_to_the_likelihood_ratio_where_gradients_explode():
    _, policy, _, _ = problem()
    g = torch.Generator().manual_seed(0)
    start = 0.1 * torch.randn(3000, 2, generator=g, dtype=F64)
    noise, xi = (torch.randn(25, 3000, d, generator=g, dtype=F64) for d in (1, 2))
    samples, shares = total_propagation(Chaotic(), policy, start, noise, state_noise=xi, state_std=0.05)
    pure = first_order(Chaotic(), policy, start, noise, horizons=[25]).at(25)
    assert shares[0] > 0.5 > shares[-1], shares.tolist()
    assert samples.var(0).sum() < 0.05 * pure.var(0).sum()


class Lives(Linear):
    """`Linear` where each sample, by its constant third state, has so many steps to live; from a terminal state all is NaN."""

    state_dim = 3

    def advance(self, state, action):
        alive = torch.where(state[:, 2:] > 0, state[:, 2:], torch.nan)
        return torch.cat([super().advance(state[:, :2], action), alive - 1], -1)

    def reward(self, state, action, next_state):
        return super().reward(state[..., :2], action, next_state[..., :2]) + 0 * (next_state[..., 2] - state[..., 2])

    def done(self, next_state):
        return next_state[..., 2].round() <= 0


class FirstTwo(GaussianLinear):
    """`GaussianLinear` that does not look at a third state."""

    def mean(self, state):
        return super().mean(state[..., :2])


def test_nothing_after_an_episodes_end_counts_in_a_gradient():
    """All end at step 2: as with two steps of noise. In three groups at different steps: as each group for as long as it lives."""
    _, policy, start, noise = problem(count=900, steps=4)
    g = torch.Generator().manual_seed(1)
    xi = torch.cat([torch.randn(4, 900, 2, generator=g, dtype=F64), torch.zeros(4, 900, 1, dtype=F64)], -1)
    sees = FirstTwo()
    lives = torch.tensor([1.0, 2.0, 9.0], dtype=F64).repeat_interleave(300)
    how = {"state_std": 1e-3, "gamma": 0.9}
    both = torch.cat([start, torch.full((900, 1), 2.0, dtype=F64)], -1)
    ended, shares = total_propagation(Lives(), sees, both, noise, state_noise=xi, **how)
    short, _ = total_propagation(Lives(), sees, both, noise[:2], state_noise=xi[:2], **how)
    torch.testing.assert_close(ended, short)
    assert (shares[2:] == 0).all()
    mixed = torch.cat([start, lives[:, None]], -1)
    together, _ = total_propagation(Lives(), sees, mixed, noise, state_noise=xi, **how)
    plain = first_order(Lives(), sees, mixed, noise, gamma=0.9, horizons=[4]).at(4)
    for part, steps in zip(torch.arange(900).split(300), (1, 2, 4), strict=True):
        apart = first_order(Linear(), policy, start[part], noise[:steps, part], gamma=0.9, horizons=[steps]).at(steps)
        torch.testing.assert_close(plain[part], apart)
        torch.testing.assert_close(together[part].mean(0), apart.mean(0), rtol=0.05, atol=0.02)


def test_horizon_table_has_a_row_a_horizon_with_intervals():
    world, policy, start, noise = problem(count=32, steps=5)
    table = horizon_table(first_order(world, policy, start, noise), resamples=20)
    assert table["horizon"].tolist() == [1, 2, 3, 4, 5] and (table["variance_low"] <= table["variance_high"]).all()
    assert (table["samples"] == 32).all() and table["parameters"].eq(len(flat_parameters(policy))).all()


def test_scaling_the_reward_scales_the_variance_and_leaves_the_esnr():
    class Scaled(Linear):
        def reward(self, state, action, next_state):
            return 20.0 * super().reward(state, action, next_state)

    _, policy, start, noise = problem(count=32, steps=5)
    plain, scaled = (horizon_table(first_order(w, policy, start, noise), resamples=0) for w in (Linear(), Scaled()))
    assert scaled["variance"].to_numpy() == pytest.approx(400 * plain["variance"].to_numpy())
    assert scaled["esnr"].to_numpy() == pytest.approx(plain["esnr"].to_numpy())


def test_fidelity_of_a_world_with_itself_is_one_and_of_a_mirrored_one_minus_one():
    world, _, start, _ = problem(count=10)
    actions = torch.randn(8, 10, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    same = gradient_fidelity(world, Linear(), start, start, actions, horizons=[1, 8], kind="random")
    torch.testing.assert_close(torch.tensor(same["cosine"]), torch.ones(2, dtype=F64))
    torch.testing.assert_close(torch.tensor(same["norm_ratio"]), torch.ones(2, dtype=F64))
    assert same["kind"].tolist() == ["random"] * 2 and same["ended"].eq(0).all()

    class Mirrored(Linear):
        def reward(self, state, action, next_state):
            return -2.0 * super().reward(state, action, next_state)

    opposite = gradient_fidelity(Mirrored(), world, start, start, actions, horizons=[8])
    assert opposite["batch_cosine"][0] == pytest.approx(-1.0) and opposite["batch_norm_ratio"][0] == pytest.approx(2.0)


def test_reward_gradients_are_open_loop_and_stop_at_the_end_of_an_episode():
    world, _, start, _ = problem(count=5, ends_above=0.4)
    actions = torch.randn(6, 5, 1, generator=torch.Generator().manual_seed(0), dtype=F64).requires_grad_()
    state, total, alive = start, 0.0, torch.ones(5, dtype=F64)
    for action in actions:
        following = world.advance(state, action)
        total = total + (alive * world.reward(state, action, following)).sum()
        alive, state = alive * (~world.done(following)).double(), following
    (expected,) = torch.autograd.grad(total, actions)
    found, living = reward_gradients(world, start, actions.detach(), horizons=[6])
    torch.testing.assert_close(found[0], expected)
    assert torch.equal(living[0], alive > 0) and 0 < int(alive.sum()) < 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, p, s, n: first_order(w, p, s[0], n), r"start has shape \(2,\) and noise \(4, 6, 1\)"),
        (
            lambda w, p, s, n: first_order(w, p, s, n[:, :3]),
            r"noise \(4, 3, 1\); expected \[N, state_dim\] and \[T, N, 1\] with the same N",
        ),
        (lambda w, p, s, n: first_order(w, p, s, n, horizons=[0, 2]), r"ascending integers from 1 to the 4 steps of noise, got \[0, 2\]"),
        (lambda w, p, s, n: first_order(w, p, s, n).at(9), r"horizon 9 was not asked for"),
        (lambda w, p, s, n: zeroth_order(w, p, s[:1], n[:, :1]), "need at least 2 samples, got 1"),
        (lambda w, p, s, n: zeroth_order(w, p, s, n, baseline="best"), "baseline, .* must be 'none', 'mean' or 'reward_to_go', got 'best'"),
        (lambda w, p, s, n: zeroth_order(w, nn.Identity(), s, n), "Identity"),
        (lambda w, p, s, n: gradient_statistics(s[:1]), "need at least 2 samples, got 1"),
        (lambda w, p, s, n: gradient_statistics(n), r"gradients must be \[N, P\], got shape \(4, 6, 1\)"),
        (lambda w, p, s, n: gradient_statistics(s, reference=s[0, :1]), r"reference has shape \(1,\), expected \(2,\)"),
        (lambda w, p, s, n: mix(s, s[:3], 0.5), r"one shape \[N, P\], got \(6, 2\) and \(3, 2\)"),
        (lambda w, p, s, n: mix(s, s, 1.5), r"alpha must lie in \[0, 1\], got 1.5"),
        (lambda w, p, s, n: parameter_smoothing(w, p, s, n, sigma=0.1, directions=s[:, :1]), r"shape \(6, 1\), expected \(6, 2\)"),
        (lambda w, p, s, n: total_propagation(w, p, s, n, state_noise=n, state_std=0.1), r"state_noise has shape \(4, 6, 1\), expected"),
        (lambda w, p, s, n: gradient_fidelity(w, w, s, s[:4], n), "6 states of the model and 4 of the simulator"),
    ],
)
def test_wrong_input_is_named(call, message):
    world, policy, start, noise = problem(count=6, steps=4)
    with pytest.raises((ValueError, AttributeError), match=message):
        call(world, policy, start, noise)
