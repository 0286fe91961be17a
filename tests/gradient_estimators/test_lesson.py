"""Notebook 05: its cells compute what the library does, its pictures follow an edit, and its sliders and sentences are true."""

import functools
import math

import matplotlib.pyplot as plt
import pytest
import torch
from test_cells import cells, run

from companion.gradient_estimators import pictures as lesson
from companion.reporting.sliders import slider
from pwmlib.estimators import first_order, zeroth_order
from pwmlib.sim.closed_form.ball_wall import BallWall

TAGS = ("estimators", "bowl", "step", "ball_and_wall", "rollout", "contact", "parting", "chaos")


def lines(sources, *tags, **changes):
    """The names after the cells, which need what the notebook's first cell imports."""
    return run(sources, *tags, names={"functools": functools, "torch": torch, "lesson": lesson}, **changes)


@pytest.fixture(scope="module")
def sources():
    return cells("05")


@pytest.fixture(scope="module")
def found(sources):
    """The names of the lesson's cells, with small pictures."""
    few = {"contact": {"draw_contact(stiffness=64.0)": ""}, "chaos": {"draw_chaos(horizon=150)": ""}}
    return lines(sources, *TAGS, **few)


class OneAction:
    """A world of one step: the reward is f of the action."""

    state_dim = action_dim = 1

    def __init__(self, f):
        self.f = f

    def advance(self, state, action):
        return action

    def reward(self, state, action, next_state):
        return self.f(action)

    def done(self, next_state):
        return None


class Blind(torch.nn.Module):
    """Draws its action around theta, whatever the state."""

    def __init__(self, theta, sigma):
        super().__init__()
        self.theta, self.std = torch.nn.Parameter(theta), sigma * torch.ones_like(theta)

    def mean(self, state):
        return self.theta.expand(state.shape)

    def forward(self, state, noise):
        return self.mean(state) + self.std * noise


@pytest.mark.parametrize("name", ["bowl", "step", "ball_and_wall"])
def test_the_estimators_in_the_cell_are_those_of_the_library(found, name):
    theta, noise = torch.tensor([0.2]), torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    problem = OneAction(found[name]), Blind(theta, 0.4), torch.zeros(50, 1), noise[None]
    for order, library in (("first", first_order(*problem)), ("zeroth", zeroth_order(*problem, baseline="mean"))):
        gradients = found[f"{order}_order"](found[name], theta, noise, 0.4)
        torch.testing.assert_close(gradients, library.at(1).float(), rtol=1e-5, atol=1e-5)


def test_the_ball_in_the_cell_is_that_of_the_library(found):
    theta = torch.linspace(-math.pi, math.pi, 4001)
    torch.testing.assert_close(found["ball_and_wall"](theta[:, None]), BallWall().objective(theta), rtol=1e-4, atol=1e-4)


def test_an_edited_cell_draws_another_picture(sources):
    pictures = []
    for edit in ({}, {}, {"estimators": {"* noise / sigma": "* noise"}}, {"step": {"> 0)": "> 0.5)"}}):
        pictures.append(lines(sources, "estimators", "step", **edit)["draw_step"](sigma=0.5).data)
    assert pictures[0] == pictures[1] and len(set(pictures)) == 3


def test_moving_a_slider_draws_another_picture(found):
    box = slider(found["draw_step"], sigma=(0.05, 1.5, 0.5), samples=(50, 5000, 1000))
    sigma, samples, image = box.children
    before = image.value
    assert before == found["draw_step"](sigma=0.5, samples=1000).data and type(samples).__name__ == "IntSlider"
    sigma.value = 1.1
    assert image.value != before and image.value == found["draw_step"](sigma=sigma.value, samples=1000).data
    draw = lambda sigma: lesson.spread(found["bowl"], found["orders"], sigma=sigma)  # noqa: E731
    assert type(slider(draw, sigma=(0.02, 2.0, 0.3)).children[0]).__name__ == "FloatLogSlider"


def test_pictures_are_png_and_leave_no_open_figure(found):
    before = plt.get_fignums()
    for picture in (lesson.spread(found["bowl"], found["orders"]), found["draw_ball"](), found["draw_chaos"](horizon=12)):
        assert picture.data[:8] == b"\x89PNG\r\n\x1a\n"
    assert plt.get_fignums() == before


def test_quadrature_gives_the_closed_form_of_the_smoothed_step(found):
    grid = torch.tensor([-0.7, 0.0, 0.4])
    values, gradient = lesson.smoothed(found["step"], grid, 0.5)
    for theta, value, slope in zip(grid.tolist(), values.tolist(), gradient.tolist(), strict=True):
        assert value == pytest.approx(0.5 * (1 + math.erf(theta / 0.5 / math.sqrt(2))), abs=2e-3)
        assert slope == pytest.approx(math.exp(-0.5 * (theta / 0.5) ** 2) / (0.5 * math.sqrt(2 * math.pi)), abs=2e-3)


def test_neighbours_part_as_the_lesson_says_and_where_they_hang_they_do_not(sources, found):
    mean, rate = lesson.growth(found["distances"])
    assert mean[0] < 1.5e-3 and mean[149] > 0.3 and 1 / 24 < rate < 1 / 18
    fitted = mean[0] * torch.exp(rate * torch.arange(1, 151))
    assert (mean.log() - fitted.log())[20:120].abs().max() < 0.7, "exponentially, once begun"
    rising = {"[0.5, 0.0, -2.0, 2.0]": "[torch.pi, 0.0, 0.0, 0.0]"}
    hanging = lines(sources, "rollout", "parting", parting=rising)["distances"]
    assert lesson.growth(hanging)[0].max() < 0.02


def statistics(found, f, size, sigma, samples):
    """(variance, ESNR) of both estimators at zero, as the pictures draw them."""
    noise = torch.randn(samples, size, generator=torch.Generator().manual_seed(1))
    gradients = [found[f"{order}_order"](f, torch.zeros(size), noise, sigma).double() for order in ("first", "zeroth")]
    return [(float(g.var(0).sum()), float(g.mean(0).square().sum() / g.var(0).sum())) for g in gradients]


def test_what_the_lesson_says_of_contact_and_chaos(found):
    gentle, stiff = (statistics(found, lambda x, k=k: found["contact"](x, k), 72, 0.3, 64) for k in (1.0, 64.0))
    assert 3e3 < stiff[0][0] / gentle[0][0] < 3e4 and 2 < stiff[1][0] / gentle[1][0] < 3
    ratios, ahead = {}, {}
    for horizon in (10, 40, 150):
        (first, esnr), (zeroth, other) = statistics(found, found["chaos"], horizon, 1.0, 256)
        ratios[horizon], ahead[horizon] = first / zeroth, esnr / other
    assert 0.1 < ratios[10] < 0.3 and ratios[40] < 0.3 and 10 < ratios[150] < 40
    assert ahead[10] > 2 and ahead[40] > 2 and ahead[150] < 1
