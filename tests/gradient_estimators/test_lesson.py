"""The sliders of notebook 05: moving one draws another picture; and the closed forms that the pictures stand on."""

import functools
import math

import pytest
import torch

from companion.gradient_estimators import pictures as lesson
from pwmlib.estimators import horizon_table, objective_gradients


def estimator(order):
    return lambda f, theta, noise, sigma: objective_gradients(f, theta, noise, sigma=sigma, order=order)


def jump(x):
    return (x[:, 0] > 0).to(x.dtype) + 0.0 * x[:, 0]


step = functools.partial(lesson.along, jump, estimator("first"), estimator("zeroth"))
bowl = functools.partial(lesson.spread, lambda x: 0.5 * x.square().sum(-1), estimator("first"), estimator("zeroth"))


def test_moving_a_slider_draws_another_picture():
    box = lesson.slider(step, sigma=(0.05, 1.5, 0.5), samples=(50, 5000, 1000))
    sigma, samples, image = box.children
    before = image.value
    assert before == step(sigma=0.5, samples=1000).png and type(samples).__name__ == "IntSlider"
    sigma.value = 1.1
    assert image.value != before and image.value == step(sigma=sigma.value, samples=1000).png
    wide = lesson.slider(bowl, sigma=(0.02, 2.0, 0.3)).children[0]
    assert type(wide).__name__ == "FloatLogSlider"


def test_pictures_are_png_and_leave_no_open_figure():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for draw in (bowl, functools.partial(step, sigma=0.5), lesson.chaos):
        assert draw()._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
    assert plt.get_fignums() == before


def test_quadrature_gives_the_closed_form_of_the_smoothed_step():
    grid = torch.tensor([-0.7, 0.0, 0.4])
    values, gradient = lesson._smoothed(jump, grid, 0.5)
    for theta, value, slope in zip(grid.tolist(), values.tolist(), gradient.tolist(), strict=True):
        assert value == pytest.approx(0.5 * (1 + math.erf(theta / 0.5 / math.sqrt(2))), abs=2e-3)
        assert slope == pytest.approx(math.exp(-0.5 * (theta / 0.5) ** 2) / (0.5 * math.sqrt(2 * math.pi)), abs=2e-3)


def test_neighbours_part_where_the_lesson_says_and_the_first_order_loses_its_lead_there():
    """What the picture of the chaos section shows, and what is written below it."""
    found = lesson.separation()
    median = found.distance.median(1).values
    assert median[0] < 1.5e-3 and median[100] > 1.0, "from a thousandth of a radian to more than one within 101 steps"
    error = median[: len(found.fitted)].log() - torch.as_tensor(found.fitted).log()
    assert 1 / 16 < found.rate < 1 / 10 and len(found.fitted) > 60 and error[10:].abs().max() < 0.4, "exponentially, once begun"
    hanging = lesson.separation((math.pi, 0.0, 0.0, 0.0))
    assert hanging.distance.median(1).values.max() < 0.02
    first, zeroth = lesson._both_orders("double_pendulum", 100, 64, 1.0, 8)
    first, zeroth = (horizon_table(g, resamples=0).set_index("horizon") for g in (first, zeroth))
    ahead = first["variance"] < zeroth["variance"]
    assert ahead.loc[:56].all() and not ahead.loc[64:].any()
    ahead = first["esnr"] > zeroth["esnr"]
    assert ahead.loc[:56].all() and not ahead.loc[64:].any()
