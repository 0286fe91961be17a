"""Where a promise goes wrong: worlds in which one part is off by a known amount."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pwmlib.data import Episode
from pwmlib.evaluation.promises import promise

GAMMA, HORIZON, DECISIONS = 0.9, 8, 40
FUTURE = 44  # the first power of 0.9 below 0.01
ERRORS = ("reward", "dynamics", "beyond", "critics")
WEIGHT = GAMMA ** torch.arange(HORIZON, dtype=torch.float64)


class View:
    """x' = 0.9 x + a + drift, r = x + offset: the true world where both are 0."""

    obs_dim, action_dim, reward_symexp = 3, 2, True
    model = SimpleNamespace(action_dim=2, config=SimpleNamespace(two_hot=None), obs_mean=torch.zeros(()))

    def __init__(self, drift=0.0, offset=0.0):
        self.drift, self.offset = drift, offset

    def encode(self, obs):
        assert obs.shape[-1] == 3 and (obs[..., 1:] == 0).all(), "padded"
        return obs

    def advance(self, state, action):
        return torch.cat([0.9 * state[..., :1] + action[..., :1] + self.drift, state[..., 1:]], -1)

    def reward(self, state, action, next_state=None):
        return state[..., 0] + self.offset

    def done(self, next_state):
        return None


class Actor:
    """a = 0.1 x, so that x stays where it is."""

    action_dim = 2

    def __call__(self, state, noise):
        return torch.cat([0.1 * state[..., :1], torch.zeros_like(state[..., :1])], -1)


def episodes(*levels):
    rows = [np.column_stack([np.full(DECISIONS + 1, x), np.full(DECISIONS + 1, 0.1 * x), np.full(DECISIONS + 1, x)]) for x in levels]
    for r in rows:
        r[0, 1:] = np.nan  # nothing was done before the first state
    return [Episode(r.astype(np.float32), "evaluation", 0, False, False) for r in rows]


def critics(extra=0.0):
    return SimpleNamespace(value=lambda state: state[..., 0] / (1 - GAMMA) + extra)


@pytest.mark.parametrize(
    ("view", "values", "part", "amount"),
    [
        (View(), critics(), "reward", 0.0),
        (View(), critics(extra=3.0), "critics", 3.0 * GAMMA**HORIZON * (1 - GAMMA**FUTURE)),
    ],
)
def test_one_part_is_to_blame(view, values, part, amount):
    found = promise(Actor(), values, view, episodes(1.0, 2.0), obs_dim=1, gamma=GAMMA, horizon=HORIZON)
    assert found.real == pytest.approx(15.0, rel=1e-5), "the mean of 1 / (1 - gamma) and 2 / (1 - gamma)"
    for name in ERRORS:
        beyond = 3.0 * GAMMA ** (HORIZON + FUTURE) if part == "critics" else 0.0  # the critics stand for what follows the imagined future
        assert getattr(found, name) == pytest.approx(amount if name == part else beyond if name == "beyond" else 0.0, abs=5e-5), name
    assert found.promised == pytest.approx(found.real + sum(getattr(found, e) for e in ERRORS), abs=1e-4)


def test_a_reward_that_is_off_is_off_beyond_the_horizon_too_and_critics_that_know_the_truth_undo_it():
    found = promise(Actor(), critics(), View(offset=0.5), episodes(1.0), obs_dim=1, gamma=GAMMA, horizon=HORIZON)
    beyond = GAMMA**HORIZON * 0.5 * (1 - GAMMA**FUTURE) / (1 - GAMMA)
    assert found.reward == pytest.approx(0.5 * float(WEIGHT.sum()), rel=1e-4)
    assert (found.beyond, found.critics) == (pytest.approx(beyond, rel=1e-4), pytest.approx(-beyond, rel=1e-4))


def test_drifting_dynamics_are_blamed_for_rewards_and_for_the_value_of_where_they_lead():
    found = promise(Actor(), critics(), View(drift=0.2), episodes(1.0), obs_dim=1, gamma=GAMMA, horizon=HORIZON)
    steps = torch.arange(HORIZON, dtype=torch.float64)
    through_the_value = GAMMA**HORIZON * 0.2 * HORIZON / (1 - GAMMA)
    assert found.dynamics == pytest.approx(float((WEIGHT * 0.2 * steps).sum()) + through_the_value, rel=1e-4)
    assert found.reward == pytest.approx(0.0, abs=2e-5)
    later = torch.arange(FUTURE, dtype=torch.float64)
    drifted = float((GAMMA**later * 0.2 * later).sum()) + GAMMA**FUTURE * 0.2 * FUTURE / (1 - GAMMA)
    assert found.beyond == pytest.approx(GAMMA**HORIZON * drifted, rel=1e-4) and found.critics == pytest.approx(-found.beyond, rel=1e-4)
    assert found.promised == pytest.approx(found.real + sum(getattr(found, e) for e in ERRORS), abs=1e-4)
