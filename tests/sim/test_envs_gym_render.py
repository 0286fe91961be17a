"""The Gymnasium adapters with Gymnasium's own checker, and the pictures."""

import matplotlib
import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")
matplotlib.use("Agg")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from pwmlib.sim.env import DifferentiableEnv  # noqa: E402
from pwmlib.sim.gym import IDS, GymEnv, GymVectorEnv  # noqa: E402
from pwmlib.sim.registry import ENVS  # noqa: E402
from pwmlib.sim.render import render, render_frames, save_animation, shape_points  # noqa: E402


@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is:UserWarning")
@pytest.mark.parametrize("name", ["hopper", "ant"])
def test_gymnasiums_checker_accepts_the_single_environment(name):
    check_env(GymEnv(name, render_mode="rgb_array"), skip_render_check=False)


def test_gymnasium_makes_every_robot_by_its_id():
    assert list(IDS) == list(ENVS), "a new environment needs an id"
    env = gymnasium.make("pwm/Hopper-v0", episode_length=3)
    obs, _ = env.reset(seed=1)
    np.testing.assert_array_equal(obs, GymEnv("hopper").reset(seed=1)[0])
    for _ in range(3):
        *_, truncated, _ = env.step(np.zeros(3, np.float32))
    assert truncated
    envs = gymnasium.make_vec("pwm/Ant-v0", num_envs=4, vectorization_mode="vector_entry_point")
    assert isinstance(envs.unwrapped, GymVectorEnv) and envs.reset(seed=0)[0].shape == (4, 37)


def test_vector_environment_follows_gymnasiums_conventions():
    envs = GymVectorEnv("hopper", 12, episode_length=20)
    obs, infos = envs.reset(seed=3)
    again, _ = GymVectorEnv("hopper", 12, episode_length=20).reset(seed=3)
    assert obs.shape == envs.observation_space.shape == (12, 11) and obs.dtype == np.float32 and infos == {}
    np.testing.assert_array_equal(obs, again)
    assert envs.observation_space.contains(obs) and envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    envs.action_space.seed(0)
    finished = 0
    for _ in range(45):
        obs, reward, terminated, truncated, infos = envs.step(envs.action_space.sample())
        assert reward.shape == terminated.shape == truncated.shape == (12,) and terminated.dtype == bool
        ended = terminated | truncated
        if ended.any():
            np.testing.assert_array_equal(infos["_final_obs"], ended)
            assert (infos["final_obs"][ended] != obs[ended]).any(-1).all()
        finished += int(ended.sum())
    assert finished >= 24


def test_recording_wrapper_counts_episodes():
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(GymVectorEnv("hopper", 4, episode_length=10))
    envs.reset(seed=0)
    for _ in range(10):
        *_, infos = envs.step(np.zeros((4, 3), np.float32))
    assert "episode" in infos and (infos["episode"]["l"] == 10).all()


def test_shape_points_are_where_the_robot_is():
    env = DifferentiableEnv("hopper", 3)
    state = torch.zeros(1, 12)
    state[0, 0], state[0, 1] = 7.0, 0.5
    torso = shape_points(env.model, state)[0][1][0]
    np.testing.assert_allclose(torso, [[7.0, 1.25 + 0.5 - 0.2, 0.0], [7.0, 1.25 + 0.5 + 0.2, 0.0]], atol=1e-12)
    ant = DifferentiableEnv("ant", 2)
    center = shape_points(ant.model, ant.state)[0][1][:, 0]
    np.testing.assert_allclose(center, ant.state[:, :3].numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ENVS)
def test_frames_show_a_moving_robot(name):
    env = DifferentiableEnv(name, 1)
    states = [env.state]
    for _ in range(12):
        states.append(env.step(torch.zeros(1, env.action_dim)).state)
    images = render_frames(env.model, torch.cat(states), stride=4)
    assert images.shape == (4, 360, 640, 3) and images.dtype == np.uint8
    dark = (images.astype(int).sum(-1) < 380).mean((1, 2))
    assert (dark > 0.002).all(), "the robot is not in the picture"
    assert (images[0] != images[-1]).any()


def test_animations_are_saved_and_wrong_files_refused(tmp_path):
    env = DifferentiableEnv("hopper", 4)
    animation = render(env.model, env.state, stride=1)
    assert "<img" in animation.to_jshtml()
    assert save_animation(animation, tmp_path / "gait.gif").read_bytes()[:3] == b"GIF"
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4, got 'gait\.avi'"):
        save_animation(animation, tmp_path / "gait.avi")
    with pytest.raises(ValueError, match=r"states has shape \(2, 3\), expected \[T, 6\] or \[T, 12\] for 'hopper'"):
        render(env.model, torch.zeros(4, 3))
    broken = env.state.clone()
    broken[2, 1] = float("nan")
    with pytest.raises(ValueError, match="state 2 of 4 is not finite"):
        render_frames(env.model, broken, stride=1)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        GymEnv("hopper", render_mode="human")
