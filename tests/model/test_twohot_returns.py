"""Two-hot rewards and TD(lambda) against closed forms and the reference arrays."""

import math

import pytest
import torch

from pwmlib.model.twohot import TwoHot, symexp, symlog
from pwmlib.optimizer.imagination import td_lambda


def test_symexp_inverts_symlog_with_the_right_slope():
    x = torch.tensor([-50.0, -1.0, -1e-3, 0.0, 1e-3, 2.0, 900.0], dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x)
    y = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(symexp(y).sum(), y)
    torch.testing.assert_close(slope, y.detach().abs().exp())


def test_two_hot_is_a_distribution_with_the_right_mean_at_both_ends_and_between():
    code = TwoHot()
    ends = math.expm1(10.0)
    x = torch.tensor([-1e9, -ends, -3.3, 0.0, 0.1, 7.0, ends, 1e9], dtype=torch.float64)
    p = code.encode(x)
    torch.testing.assert_close(p.sum(-1), torch.ones(8, dtype=torch.float64))
    assert (p > 0).sum(-1).max() <= 2
    torch.testing.assert_close(p @ code.points(p), symlog(x).clamp(-10, 10))
    assert p[0, 0] == 1 and p[-1, -1] == 1


def test_decode_of_confident_logits_returns_the_reward():
    code = TwoHot()
    x = torch.tensor([-2.5, 0.0, 0.7, 30.0], dtype=torch.float64)
    logits = torch.log(code.encode(x) + 1e-30)
    torch.testing.assert_close(code.decode(logits, inverse_symlog=True), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(code.decode(logits, inverse_symlog=False), symlog(x), rtol=1e-9, atol=1e-9)


def test_cross_entropy_is_least_at_the_target_and_passes_gradcheck():
    code, x = TwoHot(bins=7, low=-2, high=2), torch.tensor([0.3, -1.0], dtype=torch.float64)
    best = torch.log(code.encode(x) + 1e-12)
    assert (code.cross_entropy(best, x) <= code.cross_entropy(best + 0.1 * torch.randn_like(best), x)).all()
    logits = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: code.cross_entropy(v, x).sum(), logits)


def test_bins_first_asked_for_in_inference_mode_serve_training():
    code = TwoHot(bins=7, low=-1.25, high=2.5)
    with torch.inference_mode():
        code.decode(torch.zeros(7), inverse_symlog=True)
    logits = torch.zeros(7, requires_grad=True)
    code.decode(logits, inverse_symlog=True).backward()
    weight = torch.full((7,), 1 / 7)
    torch.testing.assert_close(logits.grad, weight * (torch.linspace(-1.25, 2.5, 7) - 0.625) * math.exp(0.625))


def test_nan_stays_nan_and_spoils_no_neighbour():
    code = TwoHot(bins=5, low=-2.0, high=2.0).encode(torch.tensor([torch.nan, 0.0, torch.inf]))
    assert code[0].isnan().any() and code[1:].tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert TwoHot(bins=5).cross_entropy(torch.zeros(2, 5), torch.tensor([torch.nan, 0.0])).isnan().tolist() == [True, False]


def test_two_hot_matches_reference_arrays(golden):
    g = golden("10_two_hot")
    x, code = g["x"][:, 0], TwoHot()
    torch.testing.assert_close(symlog(x), g["symlog"][:, 0], rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(code.encode(x), g["two_hot"], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(code.decode(g["logits"], inverse_symlog=True), g["two_hot_inv"][:, 0], rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(code.decode(g["logits"], inverse_symlog=False), g["pseudo_inv"][:, 0], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(code.cross_entropy(g["logits"], x), g["soft_ce"][:, 0], rtol=2e-5, atol=2e-5)


def test_lambda_zero_is_one_step_and_lambda_one_is_monte_carlo():
    r, v = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    torch.testing.assert_close(td_lambda(r, v, gamma=0.9, lam=0.0), r + 0.9 * v)
    discount = 0.9 ** torch.arange(6, dtype=r.dtype)
    full = torch.stack([torch.tensordot(discount[: 6 - t], r[t:], dims=1) + 0.9 ** (6 - t) * v[-1] for t in range(6)])
    torch.testing.assert_close(td_lambda(r, v, gamma=0.9, lam=1.0), full)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_constant_reward_and_its_value_are_a_fixed_point(lam):
    value = torch.full((5, 2), 1 / (1 - 0.9), dtype=torch.float64)
    torch.testing.assert_close(td_lambda(torch.ones(5, 2, dtype=torch.float64), value, gamma=0.9, lam=lam), value)


def test_termination_stops_and_truncation_bootstraps():
    r, v = torch.ones(3, 1, dtype=torch.float64), torch.full((3, 1), 10.0, dtype=torch.float64)
    end = torch.tensor([[False], [True], [False]])
    ended = td_lambda(r, v, gamma=0.5, lam=1.0, terminated=end)
    torch.testing.assert_close(ended[:, 0], torch.tensor([1.5, 1.0, 6.0], dtype=torch.float64))
    cut = td_lambda(r, v, gamma=0.5, lam=1.0, truncated=end)
    torch.testing.assert_close(cut[:, 0], torch.tensor([4.0, 6.0, 6.0], dtype=torch.float64))


def test_td_lambda_names_a_wrong_shape_or_value():
    with pytest.raises(ValueError, match=r"\(3, 2\) and next_value \(3, 1\)"):
        td_lambda(torch.zeros(3, 2), torch.zeros(3, 1), gamma=0.9, lam=0.9)
    with pytest.raises(ValueError, match="lam=1.5"):
        td_lambda(torch.zeros(3, 2), torch.zeros(3, 2), gamma=0.9, lam=1.5)


@pytest.mark.parametrize("kind", ["none", "some", "all"])
def test_td_lambda_matches_reference_arrays(golden, kind):
    g = golden("06_td_lambda")
    done = g[f"done_{kind}"].bool()
    ours = td_lambda(g["reward"], g["next_values"], gamma=float(g["gamma"]), lam=float(g["lam"]), truncated=done)
    torch.testing.assert_close(ours, g[f"target_{kind}"], rtol=2e-5, atol=2e-5)
