"""The store, the sampler and generation: exact content, damage, and continuing after a kill."""

import json
import resource

import numpy as np
import pandas as pd
import pytest

from companion.mt80.episodes import behaviour_quantiles, data_quantiles, generate_task, generation_job, generation_run
from companion.mt80.scales import DataPlan
from companion.running.jobs import Job, run_jobs
from companion.running.sweep import note_plan, status
from pwmlib.data import Episode, EpisodeFileError, EpisodeStore, SliceSampler
from pwmlib.data.store import record, record_together
from pwmlib.tasks import make, task

T = task("mw-reach")


def episodes(n, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, T.decisions + 1, T.obs_dim + T.action_dim + 1)).astype(np.float32)
    rows[:, 0, T.obs_dim :] = np.nan
    return [Episode(r, "made_up", i, i % 2 == 0, True) for i, r in enumerate(rows)]


def test_store_returns_what_was_written(tmp_path):
    store, made = EpisodeStore(tmp_path, T), episodes(3)
    store.write("a", made)
    rows, described = store.read("a")
    np.testing.assert_array_equal(rows, np.stack([e.rows for e in made]))
    assert [d["success"] for d in described] == [True, False, True]
    index = store.index()
    np.testing.assert_allclose(index["return"], [np.nansum(e.rows[1:, -1]) for e in made], rtol=1e-4)
    assert data_quantiles(index)["episodes"].tolist() == [3]


@pytest.mark.parametrize("damage", ["truncated", "missing", "garbage", "other_task"])
def test_damaged_files_are_named_with_what_was_expected(damage, tmp_path):
    store = EpisodeStore(tmp_path, T)
    store.write("a", episodes(3))
    file = store.folder / "a.npy"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "missing":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(b"x" * file.stat().st_size)
    else:
        store.folder.rename(tmp_path / "mw-push")
        store = EpisodeStore(tmp_path, task("mw-push"))
    with pytest.raises(EpisodeFileError, match=r"a\.npy"):
        store.arrays()


def test_no_episodes_is_an_error_that_says_so(tmp_path):
    with pytest.raises(EpisodeFileError, match="no episodes of mw-reach"):
        EpisodeStore(tmp_path, T).arrays()


def test_slices_are_consecutive_rows_of_one_episode_padded():
    cart = task("cartpole-swingup")
    marked = np.zeros((2, cart.decisions + 1, 7), np.float32)
    marked[..., 0] = np.arange(cart.decisions + 1) + 1000 * np.arange(2)[:, None]  # obs[0] tells episode and row
    marked[..., 5] = marked[..., 0]  # and so do action and reward
    marked[..., 6] = marked[..., 0]
    sampler = SliceSampler([T, cart], [[np.stack([e.rows for e in episodes(2)])], [marked[:1], marked[1:]]])
    obs, action, reward, which = sampler.slices(200, 4, np.random.default_rng(0))
    assert obs.shape == (5, 200, 39) and action.shape == (4, 200, 4) and reward.shape == (4, 200)
    mine = which == 1
    assert 60 < int(mine.sum()) < 140 and obs.isfinite().all() and reward.isfinite().all()
    first = obs[:, mine, 0]
    assert ((first[1:] - first[:-1]) == 1).all() and (reward[:, mine] == first[1:]).all() and (action[:, mine, 0] == first[1:]).all()
    assert (obs[:, mine, 5:] == 0).all() and (action[:, mine, 1:] == 0).all()
    assert {int(v) // 1000 for v in first[0]} == {0, 1}
    starts = sampler.start_observations(1, 300, np.random.default_rng(0), margin=400)
    assert float((starts[:, 0] % 1000).max()) <= cart.decisions - 400


def test_generation_continues_to_the_same_bytes(tmp_path):
    plan = DataPlan(metaworld={"scripted_noisy": 3, "uniform_random": 2}, replay=None, shard=2)
    assert generate_task("mw-reach", plan, str(tmp_path / "whole")) == 5
    assert generate_task("mw-reach", plan, str(tmp_path / "cut")) == 5
    whole, cut = EpisodeStore(tmp_path / "whole", T), EpisodeStore(tmp_path / "cut", T)
    for suffix in (".npy", ".json"):
        (cut.folder / f"scripted_noisy-00002{suffix}").unlink()  # as if killed before that shard
    assert generate_task("mw-reach", plan, str(tmp_path / "cut")) == 1
    assert generate_task("mw-reach", plan, str(tmp_path / "cut")) == 0
    assert whole.shards() == cut.shards() and whole.fingerprint() == cut.fingerprint()
    for shard in whole.shards():
        assert (whole.folder / f"{shard}.npy").read_bytes() == (cut.folder / f"{shard}.npy").read_bytes()


def test_a_sweep_tells_how_far_the_episodes_are_and_restores_what_is_gone(tmp_path):
    plan = DataPlan(metaworld={"uniform_random": 2}, shard=1)
    folders = {"folder": str(tmp_path / "data"), "runs_dir": str(tmp_path / "runs")}
    each = [{"name": name, "plan": plan, **folders} for name in ("mw-reach", "mw-push")]
    note_plan(tmp_path / "runs", "episodes", [generation_run(**arguments) for arguments in each])
    assert generation_job(**each[0]) == 2
    assert status(tmp_path / "runs").set_index("name")["status"].to_dict() == {"mw-reach": "finished", "mw-push": "missing"}
    (tmp_path / "data/mw-reach/uniform_random-00001.json").unlink()
    assert generation_job(**each[0]) == 1 and generation_job(**each[0]) == 0


def test_generation_refuses_a_folder_of_another_plan(tmp_path):
    generate_task("mw-reach", DataPlan(metaworld={"uniform_random": 1}), str(tmp_path))
    with pytest.raises(EpisodeFileError, match="another plan"):
        generate_task("mw-reach", DataPlan(metaworld={"uniform_random": 2}), str(tmp_path))


@pytest.mark.parametrize("name", ["cup-catch", "mw-drawer-close"])
def test_episodes_in_lock_step_are_those_run_one_by_one(name):
    t = task(name)
    rule = lambda obs: np.tanh(3 * obs[..., : t.action_dim] - obs[..., -t.action_dim :])  # noqa: E731
    together = record_together([make(t) for _ in range(3)], lambda obs, step: rule(obs), seeds=[4, 5, 6], behaviour="x")
    env = make(t)
    for seed, episode in zip((4, 5, 6), together, strict=True):
        alone = record(env, lambda obs, step: rule(obs), seed=seed, behaviour="x")
        np.testing.assert_array_equal(alone.rows, episode.rows)
        assert (alone.seed, alone.success, alone.touched) == (episode.seed, episode.success, episode.touched)


def read_a_little(folder):
    """Slices of a shard of 3 GiB, in a process that may allocate less."""
    resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    sampler = SliceSampler([T], [EpisodeStore(folder, T).arrays()])
    obs, _, reward, _ = sampler.slices(256, 16, np.random.default_rng(0))
    return float(obs.abs().sum() + reward.abs().sum()), sum(a.nbytes for a in sampler._arrays[0])


def test_data_may_be_larger_than_memory(tmp_path):
    store, count = EpisodeStore(tmp_path, T), 3 * 2**30 // (101 * 44 * 4)
    store.folder.mkdir(parents=True)
    shape = (count, T.decisions + 1, T.obs_dim + T.action_dim + 1)
    rows = np.lib.format.open_memmap(store.folder / "big.npy", "w+", np.float32, shape)  # a file with holes: nothing is written
    rows[0, 0, 0] = 1.0
    rows.flush()
    size = (store.folder / "big.npy").stat().st_size
    (store.folder / "big.json").write_text(json.dumps({"task": T.name, "shape": shape, "bytes": size, "episodes": []}))
    (result,) = run_jobs([Job("read", read_a_little, {"folder": tmp_path})], workers=1, progress=False)
    assert result.error is None, result.error
    assert result.value[1] > 2.9 * 2**30


def test_statistics_are_those_of_all_rows_however_they_are_cut(monkeypatch):
    monkeypatch.setattr("pwmlib.data.sampler.PART", 20_000)
    shards = [np.stack([e.rows for e in episodes(n, seed=n)]) * n + n for n in (7, 3)]
    mean, std, reward_mean, reward_std = SliceSampler([T], [shards]).statistics()
    obs = np.concatenate([a[..., : T.obs_dim].reshape(-1, T.obs_dim) for a in shards]).astype(np.float64)
    rewards = np.concatenate([a[:, 1:, -1].ravel() for a in shards]).astype(np.float64)
    np.testing.assert_allclose(mean[0], obs.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std[0], obs.std(0), rtol=1e-5)
    assert (reward_mean, reward_std) == pytest.approx((rewards.mean(), rewards.std()), rel=1e-6)


def test_returns_and_success_by_behaviour():
    lines = [("mw-reach", "scripted_hold", 10.0, True, True), ("mw-reach", "scripted_hold", 20.0, False, True),
             ("mw-push", "scripted_hold", 30.0, False, False), ("cup-catch", "mpc", 5.0, False, False)]  # fmt: skip
    index = pd.DataFrame(lines, columns=["task", "behaviour", "return", "success", "touched"])
    together = behaviour_quantiles(index).set_index(["suite", "behaviour"])
    scripted = together.loc[("metaworld", "scripted_hold")]
    assert scripted[["tasks", "episodes", "mean", "p50"]].tolist() == [2, 3, 20, 20]
    assert scripted[["success", "touched"]].tolist() == pytest.approx([1 / 3, 2 / 3])
    apart = behaviour_quantiles(index, each_task=True).set_index(["task", "behaviour"])
    assert apart["mean"].tolist() == [15, 30, 5] and apart["touched"].tolist() == [1, 0, 0] and apart["suite"].nunique() == 2
