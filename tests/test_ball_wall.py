"""The ball and the wall against hand-computed values, and the study's helpers."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from pwmlib.ball_wall import BallWallScale, descent_variants, found_table, readable, study, summary, surrogate_variants, verdicts
from pwmlib.toys.ball_wall import BallWall, Descent, SurrogateConfig, compare_surrogates, descend


def test_objective_equals_a_simulated_flight():
    """Step through the flight and stop at the wall: the closed form must agree away from the edge."""
    world = BallWall()
    for theta in np.linspace(-3.1, 3.1, 41):
        vx, vy, dt, x, blocked = 10 * math.cos(theta), 10 * math.sin(theta), 1e-4, 0.0, False
        for n in range(20_000):
            t = (n + 1) * dt
            x_new = vx * t + 0.5 * t * t
            if x < 5 <= x_new and vy * t - 0.5 * 9.81 * t * t < 0:
                blocked = True
                break
            x = x_new
        expected = -5.0 if blocked else -x
        assert float(world.objective(torch.tensor(theta))) == pytest.approx(expected, abs=5e-3)


def test_optimum_is_the_first_angle_that_clears_the_wall():
    theta, value = BallWall().optimum()
    # sin(theta) v = g t_c / 2 with t_c the corrected contact time
    contact = -10 * math.cos(theta) + math.sqrt(100 * math.cos(theta) ** 2 + 10)
    assert 10 * math.sin(theta) == pytest.approx(9.81 * contact / 2, abs=2e-3)
    assert value == pytest.approx(-(20 * math.cos(theta) + 2), abs=1e-6)
    released = BallWall(contact_time="released").optimum()
    assert released[0] == pytest.approx(0.123, abs=1e-3) and released[1] == pytest.approx(-21.85, abs=0.01)


def test_a_wall_lower_than_every_throw_changes_nothing():
    world, theta = BallWall(height=-1000.0), torch.linspace(-3, 3, 50)
    torch.testing.assert_close(world.objective(theta), -(20 * theta.cos() + 2))
    with pytest.raises(ValueError, match="wall=-1.0 is not allowed: must be greater than 0"):
        BallWall(wall=-1.0)


def test_descent_on_a_bowl_reaches_its_bottom_and_stays_in_the_domain():
    path = descend(lambda theta: (theta - 1.0).square(), Descent(steps=200, lr=0.05), 3)
    assert path.shape == (201, 3) and path[0, 0] == pytest.approx(-math.pi) and float((path[-1] - 1).abs().max()) < 1e-4
    assert float(descend(lambda theta: theta, Descent(start=0.0, steps=500, lr=0.1), 1).min()) == pytest.approx(-math.pi)


def test_seeds_trained_together_equal_seeds_trained_alone():
    surrogates, descents = {"simnorm": SurrogateConfig(kind="simnorm", epochs=3)}, {"plain": Descent(steps=20)}
    many, _, _ = compare_surrogates(BallWall(), surrogates, descents, seeds=3)
    one, _, _ = compare_surrogates(BallWall(), surrogates, descents, seeds=1)
    np.testing.assert_allclose(many[many.seed == 0]["rmse"], one["rmse"], rtol=1e-3)


def test_study_is_read_back_and_its_tables_are_consistent(tmp_path):
    scale = BallWallScale(seeds=3, steps=50, epochs=(2,), groups=(16,))
    assert len(surrogate_variants(scale)) == 4 and len(descent_variants(scale, -3.0, 0.01)) == 6
    table, path = study(BallWall(), scale, start=-3.0, lr=0.01, runs_dir=tmp_path)
    before = path.stat().st_mtime_ns
    again, _ = study(BallWall(), scale, start=-3.0, lr=0.01, runs_dir=tmp_path)
    assert path.stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(table, again)
    means = summary(table)
    assert (means["gap_low"] <= means["gap"] + 1e-9).all() and len(readable(means)) == 5 * 6
    assert verdicts(found_table(table))["claim"].isin(["holds", "no model finds it", "no clear difference"]).all()


def test_verdict_needs_intervals_that_do_not_overlap():
    def rows(shares):
        return pd.DataFrame(
            {"surrogate": s, "descent": "plain", "seed": i, "gap": 0.0 if i < n else 16.0} for s, n in shares.items() for i in range(20)
        )

    found = found_table(rows({"true J": 0, "relu": 2, "layernorm_mish": 20, "simnorm": 4}))
    assert verdicts(found)["claim"].tolist() == ["holds", "no clear difference"]
    found = found_table(rows({"true J": 0, "relu": 20, "layernorm_mish": 0, "simnorm": 19}))
    assert verdicts(found)["claim"].tolist() == ["fails: ReLU does better", "no clear difference"]
