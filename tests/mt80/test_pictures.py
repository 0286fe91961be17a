"""Policies at work: frames, real rewards, and what the model imagines along the episode."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from companion.mt80.pictures import Watched, imagined_rewards, learned, mosaic, strips, watch
from companion.running.jobs import Job, run_jobs
from pwmlib.data.store import record
from pwmlib.evaluation.scores import EVALUATION_SEED
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.optimizer.online_episodes import policy_actor
from pwmlib.tasks import make, task

SMALL = WorldModelConfig(latent_dim=16, encoder_hidden=(24,), dynamics_hidden=(32,), reward_hidden=(32,), task_dim=4)


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(0)
    model = WorldModel(5, 2, tasks=3, action_dims=[1, 1, 2], config=SMALL)
    return FrozenWorldModel(model, 1), Actor(16, 2, hidden=(8,))


def test_the_model_is_asked_from_every_16th_real_state_on(world):
    view, actor = world
    t = task("pendulum-swingup")
    env = make(t)
    rows = record(env, policy_actor(actor, view, env), seed=EVALUATION_SEED, behaviour="evaluation").rows
    found = imagined_rewards(t, rows, actor, view, 16)
    assert found.shape == (32, 16), "500 decisions"
    model, number = view.model, torch.tensor(1)
    z = model.encode(torch.nn.functional.pad(torch.from_numpy(rows[48, :3]), (0, 2)), number)
    for expected in found[3]:
        action = actor(z, None)
        assert float(model.reward(z, action, number, symexp=True)) == pytest.approx(expected, abs=1e-5)
        z = model.next(z, action, number)


def film(view, actor):
    return watch(task("pendulum-swingup"), actor, view, every=50, size=(64, 48))


def test_an_episode_is_filmed_or_the_missing_renderer_named(world, tmp_path):
    view, actor = world
    (done,) = run_jobs([Job("film", film, {"view": view, "actor": actor})], workers=1, progress=False)  # MuJoCo is not imported there yet
    if done.error:
        assert "RendererMissingError: MuJoCo cannot render here" in done.error and "libosmesa6" in done.error
        pytest.skip(f"no renderer here: {done.error}")
    seen = done.value
    assert seen.frames.shape == (10, 48, 64, 3) and seen.frames.std() > 0 and seen.rewards.shape == (500,)
    assert seen.score == pytest.approx(seen.rewards.sum() / 10, abs=1e-3)
    with Image.open(seen.save_gif(tmp_path)) as gif:
        assert gif.n_frames <= 10 and gif.info["duration"] >= 2000, "in real time; equal frames are one, shown longer"


def test_strips_and_mosaics_hold_every_policy():
    t, rng = task("pendulum-swingup"), np.random.default_rng(0)
    seen = [Watched(t, rng.integers(255, size=(n, 48, 64, 3), dtype=np.uint8), 50, np.ones(500), np.ones((32, 16)), 9.0) for n in (4, 6)]
    figure = strips(seen)
    assert len(figure.axes) == 4 and "score 9, mean reward 1.00, imagined 1.00" in figure.axes[0].get_title(loc="left")
    frames = mosaic([*seen, seen[0]], columns=2, frames=6)
    assert len(frames) == 6 and frames[0].shape == (96, 128, 3) and (frames[0][48:, 64:] == 255).all()
    assert (frames[5][:30, :64] == seen[0].frames[1][:30]).all(), "a shorter episode begins again"


def test_what_counts_as_learned():
    rows = [("walker-walk", "dm_control", 70, 0.0), ("cheetah-run", "dm_control", 69, 0.0), ("mw-push", "metaworld", 90, 0.4)]
    rows.append(("mw-reach", "metaworld", 90, 0.6))
    table = pd.DataFrame(rows, columns=["task", "suite", "mean_return", "success"]).assign(data_p90=100, train_seed=0)
    assert set(learned(table)) == {"walker-walk", "mw-reach"}
