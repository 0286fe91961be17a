"""Minari's datasets as world-model data, and ours as Minari's."""

import numpy as np
import pytest

minari = pytest.importorskip("minari")
from gymnasium.spaces import Box, Dict, Discrete  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402

from pwmlib.data import SliceSampler  # noqa: E402
from pwmlib.data.minari import read_minari, write_minari  # noqa: E402
from pwmlib.tasks import task  # noqa: E402


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def dataset(*lengths):
    spaces = {"observation_space": Box(-9, 9, (3,)), "action_space": Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]))}
    rng = np.random.default_rng(0)
    episodes = [
        EpisodeBuffer(
            observations=rng.normal(size=(n + 1, 3)).astype(np.float32),
            actions=np.stack([np.linspace(-2, 2, n), np.linspace(0, 1, n)], 1),
            rewards=list(rng.normal(size=n)), terminations=[False] * n, truncations=[False] * (n - 1) + [True],
        )
        for n in lengths
    ]  # fmt: skip
    return minari.create_dataset_from_buffers("own/two-v0", episodes, **spaces)


def test_episodes_of_any_length_become_rows_with_actions_in_the_unit_cube():
    given = dataset(7, 5, 7)
    task, arrays = read_minari(given)
    assert (task.name, task.obs_dim, task.action_dim, task.decisions) == ("own-two-v0", 3, 2, 7)
    assert [a.shape for a in arrays] == [(1, 6, 6), (2, 8, 6)]
    first = next(iter(given.iterate_episodes()))
    np.testing.assert_allclose(arrays[1][0][:, :3], first.observations, rtol=1e-6)
    np.testing.assert_allclose(arrays[1][0][1:, -1], first.rewards, rtol=1e-6)
    np.testing.assert_allclose(arrays[1][0][1:, 3], np.linspace(-1, 1, 7), atol=1e-6)
    np.testing.assert_allclose(arrays[1][0][1:, 4], np.linspace(-1, 1, 7), atol=1e-6)
    assert np.isnan(arrays[1][0][0, 3:]).all()
    obs, action, reward, number = SliceSampler([task], [arrays]).slices(4, 3, np.random.default_rng(0))
    assert obs.shape == (4, 4, 3) and action.abs().max() <= 1 and reward.isfinite().all() and not number.any()


def test_our_episodes_go_there_and_back_unchanged():
    t = task("mw-reach")
    rows = np.random.default_rng(1).uniform(-1, 1, (2, t.decisions + 1, t.obs_dim + t.action_dim + 1)).astype(np.float32)
    rows[:, 0, t.obs_dim :] = np.nan
    written = write_minari("pwm/reach-v0", t, [rows], author="us")
    assert written.total_episodes == 2 and written.total_steps == 200
    found, (back,) = read_minari(minari.load_dataset("pwm/reach-v0"))
    assert (found.obs_dim, found.action_dim, found.decisions) == (t.obs_dim, t.action_dim, t.decisions)
    np.testing.assert_allclose(back, rows, atol=1e-6)


@pytest.mark.parametrize(
    ("spaces", "said"),
    [
        ({"action": Box(-np.inf, np.inf, (2,))}, "actions must be bounded"),
        ({"observation": Box(-9, 9, (3, 1))}, "observations must be vectors"),
    ],
)
def test_other_spaces_are_named(spaces, said):
    class Given:
        observation_space, action_space = Box(-9, 9, (3,)), Box(-1, 1, (2,))

        class spec:
            dataset_id = "own/other-v0"

    for name, space in spaces.items():
        setattr(Given, f"{name}_space", space)
    with pytest.raises(ValueError, match=said):
        read_minari(Given)
    for space in (Discrete(3), Dict(a=Box(-1, 1, (1,)))):
        Given.action_space = space
        with pytest.raises(ValueError, match="must be vectors"):
            read_minari(Given)
