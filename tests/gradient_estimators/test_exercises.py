"""The checks of notebook 05 with right answers and with the wrong ones that people write."""

import ast
import json

import numpy as np
import pytest
import torch

from companion.gradient_estimators import exercises as ex
from companion.running.paths import PROJECT


def first(f, theta, noise, sigma):
    x = (theta + sigma * noise).requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def zeroth(values, noise, sigma):
    return values[:, None] * noise / sigma


def leave_one_out(values, noise, sigma):
    return zeroth(values - (values.sum() - values) / (len(values) - 1), noise, sigma)


def esnr(g):
    return g.mean(0).square().sum() / g.var(0).sum()


def alpha(a, b):
    c = ((a - a.mean(0)) * (b - b.mean(0))).sum() / (len(a) - 1)
    return (b.var(0).sum() - c) / (a.var(0).sum() + b.var(0).sum() - 2 * c)


def to_go(rewards, gamma):
    return (gamma ** torch.arange(len(rewards))[:, None] * rewards).flip(0).cumsum(0).flip(0)


RIGHT = {
    "first_order": first, "zeroth_order": zeroth, "baseline": leave_one_out, "esnr": esnr, "alpha": alpha, "reward_to_go": to_go,
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_are_accepted(name):
    verdict = getattr(ex, f"check_{name}")(RIGHT[name])
    assert verdict.right and repr(verdict).startswith("Right: "), verdict


@pytest.mark.parametrize("name", RIGHT)
def test_an_empty_answer_and_a_crash_are_told_kindly(name):
    check = getattr(ex, f"check_{name}")
    assert "returns nothing yet" in check(lambda *a: ...).message
    assert "stopped with ZeroDivisionError" in check(lambda *a: 1 / 0).message


ODD = {
    "tuple": (lambda x: (x,), "returns a tuple"),
    "text": (lambda x: "0.5", "no tensor of real numbers"),
    "dictionary": (lambda x: {"gradient": x}, "no tensor of real numbers"),
    "complex": (lambda x: x + 1j, "no tensor of real numbers"),
    "list of unequal rows": (lambda x: [[1.0], [1.0, 2.0]], "no tensor of real numbers"),
    "nothing inside": (lambda x: [], "expected"),
    "NaN": (lambda x: x * float("nan"), "not finite"),
    "whole numbers": (lambda x: torch.zeros_like(x, dtype=torch.int64), ""),
    "truths": (lambda x: torch.zeros_like(x, dtype=torch.bool), ""),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_answer_is_told_kindly(name, odd):
    change, words = ODD[odd]
    verdict = getattr(ex, f"check_{name}")(lambda *a: change(torch.as_tensor(RIGHT[name](*a))))
    assert not verdict.right and words in verdict.message, verdict


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_in_other_forms_are_accepted(name):
    forms = {
        "float64": lambda x: torch.as_tensor(x).double(),
        "with a gradient": lambda x: torch.as_tensor(x).clone().requires_grad_(),
        "NumPy, rows read backwards": lambda x: np.atleast_1d(np.asarray(x))[::-1].copy()[::-1].reshape(np.shape(x)),
        "lists": lambda x: torch.as_tensor(x).tolist(),
        "sparse": lambda x: torch.as_tensor(x).to_sparse(),
    }
    for form, change in forms.items():
        verdict = getattr(ex, f"check_{name}")(lambda *a, change=change: change(RIGHT[name](*a)))
        assert verdict.right, (form, verdict)


@pytest.mark.parametrize("name", RIGHT)
def test_a_function_that_changes_its_arguments_is_judged_by_what_it_returns(name):
    def careless(*arguments):
        answer = RIGHT[name](*arguments)
        for x in arguments:
            if isinstance(x, torch.Tensor):
                x.zero_()
        return answer

    assert getattr(ex, f"check_{name}")(careless).right


@pytest.mark.parametrize("name", ["first_order", "baseline"])
def test_zeros_are_called_zero(name):
    verdict = getattr(ex, f"check_{name}")(lambda *a: 0.0 * RIGHT[name](*a))
    assert not verdict.right and "the mean" in verdict.message and "zero" in verdict.message and "sign" not in verdict.message


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("first_order", lambda f, t, w, s: first(f, t, w, s).mean(0), "Did you average over the samples"),
        ("first_order", lambda f, t, w, s: first(f, t, w, s).T, "axes are the wrong way round"),
        ("first_order", lambda f, t, w, s: -first(f, t, w, s), "sign is turned"),
        ("first_order", lambda f, t, w, s: first(f, t, 0 * w, s), "slope at theta itself"),
        ("first_order", lambda f, t, w, s: first(f, t, w, s) / len(w), "N times too small"),
        ("first_order", lambda f, t, w, s: s * first(f, t, w, s), "with respect to theta, not to w"),
        ("first_order", lambda f, t, w, s: 3 * first(f, t, w, s), "too large: 3.00 times"),
        ("zeroth_order", lambda v, w, s: v[:, None] * w, "divide by sigma"),
        ("zeroth_order", lambda v, w, s: v[:, None] * w / s**2, "too large by 1 / sigma"),
        ("zeroth_order", lambda v, w, s: -zeroth(v, w, s), "sign is turned"),
        ("zeroth_order", lambda v, w, s: zeroth(v, w.flip(0), s), "the mean is zero"),
        ("zeroth_order", lambda v, w, s: v[:, None] * w * s, "not sigma w"),
        ("baseline", zeroth, "baseline is missing"),
        ("baseline", lambda v, w, s: zeroth(v - v.mean(), w, s), "Leave the sample itself out"),
        ("baseline", lambda v, w, s: -leave_one_out(v, w, s), "sign is turned"),
        ("esnr", lambda g: (g.mean(0).square() / g.var(0)).mean(), "mean of the parameters' ratios"),
        ("esnr", lambda g: g.mean(1).square().sum() / g.var(1).sum(), "wrong axis"),
        ("esnr", lambda g: g.mean(1).square() / g.var(1), "wrong axis"),
        ("esnr", lambda g: g.mean(0).square() / g.var(0), "one ratio a parameter"),
        ("esnr", lambda g: g.mean(0).square().sum() / g.std(0).sum(), "not by standard deviations"),
        ("esnr", lambda g: g.var(0).sum() / g.mean(0).square().sum(), "upside down"),
        ("alpha", lambda a, b: 1 - alpha(a, b), "swapped"),
        ("alpha", lambda a, b: b.var(0).sum() / (a.var(0).sum() + b.var(0).sum()), "covariance"),
        ("alpha", lambda a, b: 0.5, "is possible"),
        ("reward_to_go", lambda r, g: to_go(r, g)[0].expand_as(r), "cannot change rewards that came before"),
        ("reward_to_go", lambda r, g: to_go(r, 1.0), "discount is missing"),
        ("reward_to_go", lambda r, g: (g ** torch.arange(len(r))[:, None] * r).cumsum(0), "rewards up to t"),
        ("reward_to_go", lambda r, g: to_go(r, g) / g ** torch.arange(len(r))[:, None], "discounts from its own time"),
        ("reward_to_go", lambda r, g: to_go(r, g) - g ** torch.arange(len(r))[:, None] * r, "itself is missing"),
    ],
)
def test_typical_mistakes_are_named(name, answer, words):
    verdict = getattr(ex, f"check_{name}")(answer)
    assert not verdict.right and words in verdict.message, verdict


def test_the_notebook_of_solutions_has_a_right_answer_to_each():
    notebook = json.loads((PROJECT / "notebooks" / "solutions" / "05_gradient_estimators.ipynb").read_text())
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    names, checked = {}, []
    for cell in code:
        for part in ast.parse("".join(cell["source"])).body:
            text = ast.unparse(part)
            if text.startswith("exercises.check_"):
                verdict = eval(text, names)
                assert verdict.right, (text, verdict)
                checked.append(text.removeprefix("exercises.check_").split("(")[0])
            else:
                exec(text, names)
    assert sorted(checked) == sorted(RIGHT)
