"""Exercises of notebook 05: the reader writes an estimator, `check_*` says in words what is right or wrong with it.

Every check takes the reader's function, tries it on a problem whose answer is known, and returns a `Verdict`. It never raises.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and a sentence about it."""

    right: bool
    message: str

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.message}"


def _quadratic(x: Tensor) -> Tensor:
    return (x - 1.0).square().sum(-1) + 3.0


_THETA, _SIGMA, _EXACT = torch.tensor([0.5, -1.0, 2.0]), 0.4, 2 * (torch.tensor([0.5, -1.0, 2.0]) - 1.0)


def _noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def _call(function: Callable, *arguments: object, shape: tuple[int, ...]) -> tuple[Tensor | None, Verdict | None]:
    """The reader's answer in float32, and what is wrong with its form; without an answer of numbers only the latter."""
    try:
        answer = function(*(x.clone() if isinstance(x, Tensor) else x for x in arguments))
    except Exception as error:
        return None, Verdict(False, f"your function stopped with {type(error).__name__}: {error}")
    if answer is None or answer is Ellipsis:
        return None, Verdict(False, "your function returns nothing yet. Replace the dots, and do not forget `return`.")
    if isinstance(answer, tuple):
        said = "your function returns a tuple, as torch.autograd.grad does: take the entry that is wanted, such as [0]."
        return None, Verdict(False, said)
    try:
        numbers = answer if isinstance(answer, Tensor) else torch.from_numpy(np.array(answer))
        if numbers.is_complex():
            raise TypeError
        answer = numbers.detach().cpu().to_dense().float()
    except Exception:
        kind = f"{type(answer).__name__} of {answer.dtype}" if hasattr(answer, "dtype") else type(answer).__name__
        return None, Verdict(False, f"your function returns a {kind}, which is no tensor of real numbers; expected is shape {shape}.")
    if answer.shape == shape[::-1] != shape:
        return answer, Verdict(False, f"the axes are the wrong way round: you return {tuple(answer.shape)}, expected {shape}.")
    if answer.shape != shape:
        hint = " Did you average over the samples? One row a sample is wanted." if len(shape) == 2 and answer.dim() < 2 else ""
        return answer, Verdict(False, f"you return shape {tuple(answer.shape)}, expected {shape}.{hint}")
    if not bool(torch.isfinite(answer).all()):
        return answer, Verdict(False, "some of your numbers are not finite.")
    return answer, None


def _compare_mean(answer: Tensor, factors: dict[float, str]) -> Verdict | None:
    """None where the mean is the exact gradient; else the likely reason."""
    mean, error = answer.mean(0), answer.std(0) / math.sqrt(len(answer))
    tolerance = 5 * float(error.norm()) + 1e-4
    if float((mean - _EXACT).norm()) < tolerance:
        return None
    for factor, reason in factors.items():
        if float((mean - factor * _EXACT).norm()) < 5 * float(error.norm()) + 1e-4:
            return Verdict(False, reason)
    if float(mean.norm()) < tolerance:
        return Verdict(False, "the mean of your samples is zero, the true gradient is not.")
    ratio = float(mean @ _EXACT / _EXACT.square().sum())
    side = "too large" if ratio > 1 else "too small" if ratio > 0 else "of the wrong sign"
    return Verdict(False, f"the mean of your samples is {side}: {ratio:.2f} times the true gradient.")


def _recognise(answer: Tensor, candidates: Iterable[tuple[Tensor, str]], tolerance: float = 1e-5) -> Verdict | None:
    """The reason of the first candidate that the answer equals; the first of all is the right one."""
    for i, (candidate, reason) in enumerate(candidates):
        if answer.shape == candidate.shape and torch.allclose(answer, candidate, rtol=1e-4, atol=tolerance):
            return Verdict(i == 0, reason)
    return None


def check_first_order(function: Callable) -> Verdict:
    """function(f, theta [P], noise [N, P], sigma) -> [N, P]: d f(theta + sigma w) / d theta, one row a sample."""
    noise = _noise(4000)
    answer, wrong = _call(function, _quadratic, _THETA.clone(), noise, _SIGMA, shape=(4000, 3))
    if wrong:
        return wrong
    slopes = 2 * (_THETA + _SIGMA * noise - 1.0)
    candidates = (
        (slopes, "each row is the slope of f at that sample; their mean is the gradient of the smoothed objective."),
        (_EXACT.expand_as(slopes), "all rows are the slope at theta itself: the samples theta + sigma w were not used."),
        (_SIGMA * slopes, "every row is sigma times too large or small: differentiate with respect to theta, not to w."),
        (slopes / 4000, "every row is N times too small: sum the values before you differentiate, do not average them."),
    )
    other = Verdict(False, "the mean is right but the single rows are not the slopes at the single samples.")
    turned = {-1.0: "the sign is turned: the gradient of f is wanted, not of -f."}
    return _recognise(answer, candidates, tolerance=1e-6) or _compare_mean(answer, turned) or other


_ZEROTH_FACTORS = {
    -1.0: "the sign is turned: a direction w in which f grows must count positively.",
    _SIGMA: "the mean is sigma times too small: divide by sigma.",
    1 / _SIGMA: "the mean is too large by 1 / sigma: w is already divided by sigma once, w / sigma is enough.",
    _SIGMA**2: "the mean is sigma^2 times too small: the score of N(theta, sigma^2) is w / sigma, not sigma w.",
    0.0: "the mean is zero: is f evaluated at theta + sigma w, with the same w that multiplies it?",
}


def check_zeroth_order(function: Callable) -> Verdict:
    """function(values [N], noise [N, P], sigma) -> [N, P]: value times w / sigma."""
    noise = _noise(400_000)
    values = _quadratic(_THETA + _SIGMA * noise)
    answer, wrong = _call(function, values, noise, _SIGMA, shape=tuple(noise.shape))
    if wrong:
        return wrong
    if found := _compare_mean(answer, _ZEROTH_FACTORS):
        return found
    return Verdict(True, "the mean is the gradient, and f was never differentiated. Mind the variance: a baseline is next.")


def check_baseline(function: Callable) -> Verdict:
    """function(values [N], noise [N, P], sigma) -> [N, P] with the mean of the other samples subtracted from each value."""
    noise = _noise(100_000, seed=1)
    values = _quadratic(_THETA + _SIGMA * noise) + 100.0
    answer, wrong = _call(function, values, noise, _SIGMA, shape=tuple(noise.shape))
    if wrong:
        return wrong
    plain = values[:, None] * noise / _SIGMA
    if float(answer.var(0).sum()) > 0.5 * float(plain.var(0).sum()):
        return Verdict(False, "the baseline is missing: adding a constant to f must not change your answer, but its variance has grown.")
    few = _noise(4, seed=2)
    small, wrong = _call(function, few.new_tensor([1.0, 2.0, 3.0, 6.0]), few, 1.0, shape=(4, 3))
    if wrong:
        return wrong
    weights = torch.tensor([1.0, 2.0, 3.0, 6.0])
    if torch.allclose(small, (weights - weights.mean())[:, None] * few, atol=1e-5):
        said = "nearly: with the mean of all samples each value cancels 1/N of itself, a bias towards zero. Leave the sample itself out."
        return Verdict(False, said)
    if found := _compare_mean(answer, _ZEROTH_FACTORS):
        return found
    others = (weights.sum() - weights) / 3
    if not torch.allclose(small, (weights - others)[:, None] * few, atol=1e-5):
        return Verdict(False, "unbiased, but not the mean of the other samples: for values 1, 2, 3, 6 the first baseline is 11/3.")
    return Verdict(True, "unbiased, and a constant added to f no longer matters.")


def check_esnr(function: Callable) -> Verdict:
    """function(gradients [N, P]) -> scalar: sum over parameters of squared means over sum of variances (Eq. 5)."""
    g = _noise(50, seed=3) * torch.tensor([1.0, 3.0, 0.2]) + torch.tensor([1.0, 0.0, -0.5])
    answer, wrong = _call(function, g, shape=())
    if wrong:
        if answer is not None and answer.shape == (50,):
            return Verdict(False, "mean and variance run over the wrong axis: over the samples (axis 0), one number a parameter, then sum.")
        if answer is not None and answer.shape == (3,):
            return Verdict(False, "one ratio a parameter: Eq. 5 sums squared means and variances over parameters first, then divides.")
        return wrong
    mean, var = g.mean(0), g.var(0)
    right, power = "the ratio of sums of Eq. 5.", mean.square()
    released = "that is the mean of the parameters' ratios, as the released script has it; Eq. 5 is the ratio of the sums."
    candidates = (
        (power.sum() / var.sum(), right),
        (power.sum() / var.sum() * 50 / 49, right),
        ((power / var).mean(), released),
        (g.mean(1).square().sum() / g.var(1).sum(), "mean and variance run over the wrong axis: samples are the rows."),
        (power.sum() / g.std(0).sum(), "divide by variances, not by standard deviations."),
        (var.sum() / power.sum(), "upside down: signal over noise."),
        (mean.norm() / var.sum(), "square the means."),
        (mean.sum() ** 2 / var.sum(), "square each mean before you sum."),
    )
    said = f"for the test samples it should be {float(candidates[0][0]):.4f}, you return {float(answer):.4f}."
    found = _recognise(answer, candidates) or Verdict(False, said)
    return Verdict(found.message == right, found.message)


def check_alpha(function: Callable) -> Verdict:
    """function(first [N, P], zeroth [N, P]) -> alpha in [0, 1] that minimises the variance of alpha first + (1 - alpha) zeroth."""
    shared = _noise(5000, seed=4)
    first = 1.0 + shared + 0.5 * _noise(5000, seed=5)
    zeroth = 1.0 + shared + 2.0 * _noise(5000, seed=6)
    answer, wrong = _call(function, first, zeroth, shape=())
    if wrong:
        return wrong
    alpha = float(answer)
    variance = lambda a: float((a * first + (1 - a) * zeroth).var(0).sum())  # noqa: E731
    v1, v0 = float(first.var(0).sum()), float(zeroth.var(0).sum())
    c = float(((first - first.mean(0)) * (zeroth - zeroth.mean(0))).sum() / (len(first) - 1))
    best = (v0 - c) / (v1 + v0 - 2 * c)
    if abs(alpha - best) < 0.01:
        return Verdict(True, f"alpha = {alpha:.2f}: variance {variance(alpha):.2f}, first order alone {v1:.2f}, zeroth {v0:.2f}.")
    if abs(alpha - (1 - best)) < 0.01:
        return Verdict(False, "alpha and 1 - alpha are swapped: the quieter estimate deserves the larger share.")
    if abs(alpha - v0 / (v1 + v0)) < 0.01:
        said = "that is best for independent estimates. Yours share their samples: take the covariance off the variances first."
        return Verdict(False, said)
    return Verdict(False, f"alpha = {alpha:.2f} gives variance {variance(alpha):.2f}; {variance(best):.2f} is possible.")


def check_reward_to_go(function: Callable) -> Verdict:
    """function(rewards [T, N], gamma) -> [T, N]: discounted sum of the rewards from t on, gamma^t r_t counted from the start."""
    rewards = torch.rand(6, 4, generator=torch.Generator().manual_seed(7))
    gamma = 0.9
    answer, wrong = _call(function, rewards, gamma, shape=(6, 4))
    if wrong:
        return wrong
    discounted = gamma ** torch.arange(6.0)[:, None] * rewards
    to_go = discounted.flip(0).cumsum(0).flip(0)
    candidates = (
        (to_go, "each action is credited with what came after it, and with nothing else."),
        (discounted.sum(0).expand(6, 4), "every step gets the whole return: an action cannot change rewards that came before it."),
        (discounted.cumsum(0), "these are the rewards up to t; wanted are those from t on."),
        (rewards.flip(0).cumsum(0).flip(0), "the discount is missing."),
        (to_go / gamma ** torch.arange(6.0)[:, None], "each step discounts from its own time; J counts gamma^t from the start."),
        (to_go - discounted, "the reward of step t itself is missing: the action at t earns it."),
        (rewards.cumsum(0), "these are the rewards up to t, and undiscounted."),
    )
    said = f"for the last step it should be gamma^5 r_5 = {float(to_go[-1, 0]):.4f} (first sample), you have {float(answer[-1, 0]):.4f}."
    return _recognise(answer, candidates) or Verdict(False, said)
