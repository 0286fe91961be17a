"""The ball and the wall against hand-computed values, and the study's helpers."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from companion.ball_wall.study import (
    BallWallScale,
    crossed,
    descent_variants,
    outcomes,
    readable,
    study,
    summary,
    surrogate_variants,
    verdicts,
)
from companion.ball_wall.surrogates import Descent, SurrogateConfig, compare_surrogates, descend
from pwmlib.sim.closed_form.ball_wall import BallWall


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
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    with pytest.warns(UserWarning, match=r"results\.csv: damaged .* The run is done again"):
        pd.testing.assert_frame_equal(study(BallWall(), scale, start=-3.0, lr=0.01, runs_dir=tmp_path)[0], table)
    means = summary(table)
    assert (means["rmse_low"] <= means["rmse"] + 1e-9).all() and len(readable(means)) == 5 * 6
    assert len(verdicts(outcomes(table, BallWall()))) == 6 * 2


def ends(found):
    """A table of descents: {surrogate: (seeds of 20 that cross, distance of those from the optimum)}."""
    return pd.DataFrame(
        {"surrogate": name, "descent": "plain", "seed": i, "gap": gap + 0.01 * i if i < crossing else 16.3819}
        for name, (crossing, gap) in found.items()
        for i in range(20)
    )


def test_crossing_the_wall_and_the_distance_to_the_optimum_are_two_numbers():
    world = BallWall()
    found = outcomes(ends({"true J": (0, 0), "relu": (19, 3.0), "layernorm_mish": (19, 1.0)}), world).set_index("surrogate")
    # A throw 3 m short of the optimum has crossed: the ball lands 13 m behind the wall.
    assert found["crossed"].tolist() == [0, 0.95, 0.95]
    assert np.isnan(found.loc["true J", "gap"])
    np.testing.assert_allclose(found["gap"][1:], [3.09, 1.09])
    share = found.loc["relu"]
    np.testing.assert_allclose((share.crossed_low, share.crossed_high), (0.7639, 0.9911), atol=1e-3)  # Wilson
    assert (found["gap_low"] < found["gap"])[1:].all() and (found["gap"] < found["gap_high"])[1:].all()


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.78, -1.0, 3.0])
def test_a_ball_has_crossed_when_it_is_beyond_the_wall(angle):
    world, theta = BallWall(), torch.tensor([angle], dtype=torch.float64)
    t = torch.linspace(0, world.time, 20001, dtype=torch.float64)
    x = world.speed * np.cos(angle) * t + 0.5 * world.acceleration * t**2
    y = world.speed * np.sin(angle) * t - 0.5 * world.gravity * t**2
    at_the_wall = int((x >= world.wall).double().argmax())
    beyond = bool((x[-1] > world.wall) and (at_the_wall == 0 or y[at_the_wall] >= world.height))
    assert bool(crossed(world, pd.Series(world.objective(theta).numpy()))[0]) == beyond


def test_verdict_needs_intervals_that_do_not_overlap():
    world = BallWall()
    said = verdicts(outcomes(ends({"true J": (0, 0), "relu": (2, 3.0), "layernorm_mish": (20, 1.0), "simnorm": (4, 3.0)}), world))
    assert said["crosses more often"].tolist() == ["holds", "not shown at this size"]
    assert said["ends nearer"].tolist() == ["holds", "not shown at this size"]
    said = verdicts(outcomes(ends({"true J": (0, 0), "relu": (20, 1.0), "layernorm_mish": (0, 0), "simnorm": (19, 3.0)}), world))
    assert said["crosses more often"].tolist() == ["contradicts: ReLU does better", "not shown at this size"]
    assert said["ends nearer"].tolist() == ["", "contradicts: ReLU does better"], "nothing to compare where none crosses"
