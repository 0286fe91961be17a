"""The registry's facts, and one real task of each suite behind the interface."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from companion.running.jobs import Job, run_jobs
from pwmlib.tasks import MT30, MT80, make, select_tasks, task
from pwmlib.tasks.video import render_offscreen, save_video


def test_registry_has_the_published_order_and_sizes():
    assert len(MT30) == 30 and len(MT80) == 80 and MT80[:30] == MT30
    assert [MT80[i].name for i in (0, 10, 29, 30, 65, 79)] == [
        "walker-stand",
        "cartpole-swingup",
        "pendulum-spin",
        "mw-assembly",
        "mw-reach",
        "mw-hand-insert",
    ]
    assert max(t.obs_dim for t in MT30) == 24 and max(t.obs_dim for t in MT80) == 39 and max(t.action_dim for t in MT80) == 6
    assert sum(t.custom for t in MT80) == 11 and len({t.name for t in MT80}) == 80
    assert task("cup-catch").domain == "ball_in_cup" and task("mw-door-open").domain == "door-open-v3"


def test_importing_the_registry_imports_no_simulator():
    code = "import sys, pwmlib.tasks; print([m for m in ('mujoco', 'dm_control', 'metaworld', 'gymnasium') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("n", [4, 10, 20])
def test_every_prefix_of_the_stratified_order_mixes_the_suites(n):
    names = [t.name for t in select_tasks(n)]
    share = sum(t.suite == "dm_control" for t in select_tasks(n)) / n
    assert names[:4] == ["cartpole-swingup", "mw-reach", "cartpole-balance", "mw-drawer-close"] and 0.25 <= share <= 0.55
    assert select_tasks(n) == select_tasks(n + 1)[:n]


def test_select_tasks_knows_30_80_names_and_nothing_else():
    assert select_tasks(30) == MT30 and select_tasks(80) == MT80
    assert [t.name for t in select_tasks(4, ["mw-reach"])] == ["mw-reach"]
    with pytest.raises(ValueError, match=r"number from 1 to 80, got 7000"):
        select_tasks(7000)
    with pytest.raises(ValueError, match="no task 'walker-fly' in MT80; nearest: walker-"):
        select_tasks(4, ["walker-fly"])


@pytest.mark.parametrize("name", ["cartpole-swingup", "walker-stand", "cup-catch", "mw-reach", "mw-drawer-close"])
def test_real_task_keeps_the_protocol(name):
    env = make(task(name))
    t = env.task
    first, again, other = env.reset(3), env.reset(3), env.reset(4)
    assert first.shape == (t.obs_dim,) and first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    total = 0.0
    for _ in range(t.decisions):
        obs, reward, success = env.step(np.zeros(t.action_dim))
        total += reward
        assert obs.shape == (t.obs_dim,) and np.isfinite(obs).all() and isinstance(success, bool)
    if t.suite == "dm_control":
        assert 0 <= total <= 1000
    assert t.score(500.0, 0.5) == 50.0


def test_scripted_expert_touches_success():
    env = make(task("mw-drawer-close"))
    obs, touched = env.reset(0), False
    for _ in range(100):
        obs, _, success = env.step(env.expert(obs))
        touched |= success
    assert touched


def test_closed_form_cartpole_is_the_real_one():
    """The toy follows dm_control's cartpole-swingup: same reward, nearly the same motion."""
    import torch

    from pwmlib.sim.closed_form import CartpoleSwingup

    env, world = make(task("cartpole-swingup")), CartpoleSwingup()
    state = torch.from_numpy(env.reset(0)).double()
    rng, action = np.random.default_rng(0), None
    for step in range(50):
        action = torch.from_numpy(rng.uniform(-1, 1, 1)) if step % 5 == 0 else action
        following = world.advance(state, action)
        obs, reward, _ = env.step(action.numpy())
        # Two rewards, of the states after each of the two control steps; ours is twice the last.
        assert abs(float(world.reward(state, action, following)) - reward) < 0.03
        np.testing.assert_allclose(following.numpy(), obs, atol=0.03)
        state = torch.from_numpy(obs).double()


def save(name, path):
    render_offscreen()
    env = make(task(name))
    save_video(env, lambda obs, step: np.zeros(env.task.action_dim), path, seed=0, size=(64, 48), every=25)
    return env.task.decisions


@pytest.mark.parametrize("name", ["pendulum-swingup", "mw-reach"])
def test_a_video_is_saved_or_the_missing_renderer_named(name, tmp_path):
    path = tmp_path / "episode.gif"
    (done,) = run_jobs([Job("film", save, {"name": name, "path": path})], workers=1, progress=False)  # MuJoCo is not imported there yet
    if done.error:
        assert "MUJOCO_GL=egl" in done.error and not path.exists()
        pytest.skip(f"no renderer here: {done.error}")
    with Image.open(path) as gif:
        assert gif.info["duration"] >= 1000 and 1 <= gif.n_frames <= -(-done.value // 25), "equal frames are one, shown longer"
