"""The study of Section 3.2 at a tiny size: stages, continuation, tables; and its comparisons on curves made by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from companion.double_pendulum import study, sweep, training
from companion.double_pendulum.sentences import double_pendulum_claims
from companion.double_pendulum.study import KINDS, fidelity_study
from companion.running.jobs import JobsFailedError
from pwmlib.evaluation.predictions import held_out_fit
from pwmlib.sim.env import EnvDynamics

TINY = {
    "shac.updates": 6, "shac.actor_hidden": [8], "shac.critic_hidden": [8], "envs": 16, "training.updates": 20, "training.batch": 16,
    "model.latent_dim": 16, "model.encoder_hidden": [16], "model.dynamics_hidden": [16], "model.reward_hidden": [16],
    "samples": 6, "horizons": 5, "resamples": 10, "shac_seeds": 1,
}  # fmt: skip


def tiny():
    from companion.running.parameters import override

    return override(training.DOUBLE_PENDULUM_SCALES["quick"], TINY)


def test_study_runs_and_a_second_call_reads_what_the_first_one_wrote(tmp_path):
    first = study.run_study(tiny(), tmp_path, progress=False)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = study.run_study(tiny(), tmp_path, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == stamps
    pd.testing.assert_frame_equal(first.table, again.table)
    settings = first.table.groupby("setting")["world"].apply(set).to_dict()
    models = {"model, H = 3", "model, H = 16"}
    assert settings == {
        "trained policy, same actions": {"true", "true, zeroth order", *models},
        "trained policy, feedback": {"true", *models},
        "random policy, own actions": {"true", *models},
        sweep.REWARD_UNITS: {"true"},
    }
    units, same = (
        first.table[(first.table["setting"] == s) & (first.table["world"] == "true")]
        for s in (sweep.REWARD_UNITS, "trained policy, same actions")
    )
    np.testing.assert_allclose(units["esnr"], same["esnr"], rtol=1e-3)
    factor = (1 / 21554) ** 2
    np.testing.assert_allclose(units["mean_variance"], factor * same["mean_variance"], rtol=1e-3)
    assert sorted(first.table["horizon"].unique()) == [1, 2, 3, 4, 5] and (first.table["samples"] == 6).all()
    assert np.isfinite(first.table[["mean_variance", "esnr"]]).all().all()
    assert set(first.growth["world"]) == {"true", *models} and len(first.shac) == 1 and len(first.models) == 2


def test_fidelity_compares_every_milestone_and_kind_with_the_simulator(tmp_path):
    found = study.run_study(tiny(), tmp_path, progress=False)
    table = fidelity_study(tiny(), found, tmp_path)
    assert table.groupby(["world", "updates", "kind"]).size().eq(4).all()  # horizons 1 to 4
    assert sorted(table["updates"].unique()) == [2, 6, 20] and set(table["kind"]) == set(KINDS)
    assert table["cosine"].between(-1, 1).all() and (table["norm_ratio"] > 0).all() and (table["ended"] == 0).all()
    last = training.load_model(tiny(), found.models["folder"][0])
    kept = training.load_model(tiny(), found.models["folder"][0], 20)
    for a, b in zip(last.model.parameters(), kept.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_replay_rows_are_whole_episodes_with_the_action_that_led_to_each_observation():
    stream = torch.arange(2 * 7 * 14, dtype=torch.float32).view(7, 2, 14)
    rows = training.replay_rows(stream, length=3)
    assert rows.shape == (4, 4, 8)
    episode = rows[0]  # first three steps of environment 0
    np.testing.assert_array_equal(episode[0, :6], stream[0, 0, :6])
    np.testing.assert_array_equal(episode[3, :6], stream[2, 0, 6:12])
    assert episode[1, 6] == stream[0, 0, 12]
    assert episode[2, 7] == pytest.approx(float(stream[1, 0, 13]))


def test_growth_of_a_linear_world_is_its_factor():
    class Doubling:
        state_dim, action_dim = 2, 1

        def advance(self, state, action):
            return 2.0 * state + action

        def reward(self, state, action, following):
            return state[:, 0]

        def done(self, following):
            return None

    growth = sweep.perturbation_growth(Doubling(), torch.ones(5, 2), torch.zeros(4, 5, 1))
    np.testing.assert_allclose(growth["growth"], [2, 4, 8, 16], rtol=1e-3)


def test_models_answer_in_the_units_that_they_learn(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 8, 8)).astype(np.float32) * 5 - 3
    np.save(tmp_path / "replay.npy", rows)
    model = training._new_model(tiny(), training._split([str(tmp_path)])[0])
    assert float(model.reward_std) == 1.0 and float(model.reward_mean) == 0.0 and float((model.obs_std - 1).abs().max()) > 1
    points = model.config.two_hot.points(torch.zeros(1))
    logits = torch.full((1, len(points)), -30.0)
    logits[0, 40] = 30.0
    assert float(model.decode_reward(logits, symexp=True)) == pytest.approx(float(torch.sign(points[40]) * points[40].abs().expm1()))


def test_held_out_fit_tells_a_wrong_scale_that_no_correlation_shows():
    class Data:
        def slices(self, batch, horizon, rng):
            x = torch.from_numpy(rng.normal(size=(horizon + 1, batch, 1)).astype(np.float32))
            return x, torch.zeros(horizon, batch, 1), x[:-1, :, 0], torch.zeros(batch, dtype=torch.long)

    class Model:
        obs_mean, factor = torch.zeros(1), 1.0

        def unroll(self, obs, action, task):
            return obs.expand(len(action) + 1, *obs.shape)

        def reward(self, z, action, task, *, symexp):
            return self.factor * z[:, 0]

    good, scaled = Model(), Model()
    scaled.factor = 0.1
    fit, wrong = (held_out_fit(m, Data(), horizon=1) for m in (good, scaled))
    names = {f"{number}_{end}" for number in ("correlation", "slope") for end in ("first", "last")}
    assert fit == pytest.approx(dict.fromkeys(names, 1)), "with one step the first is the last"
    assert wrong["correlation_first"] > 0.97 and wrong["slope_first"] == pytest.approx(0.1)


def test_rewards_in_the_released_units():
    plain, released = EnvDynamics("double_pendulum", 4), sweep.ReleasedUnits("double_pendulum", 4)
    s = plain.reset()
    a = torch.full((4, 1), 0.3)
    n = plain.advance(s, a)
    torch.testing.assert_close(released.reward(s, a, n), plain.reward(s, a, n) / 21554 + 1)


def curves(variance, esnr):
    """One setting with flat curves: world -> (value, half width)."""
    rows = []
    for world in ("true", "model, H = 3", "model, H = 16"):
        for horizon in range(1, 31):
            row = {"setting": "s", "world": world, "horizon": horizon}
            for name, (value, half) in (("mean_variance", variance[world]), ("esnr", esnr[world])):
                row |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
            rows.append(row)
    return pd.DataFrame(rows)


def test_claims_are_read_off_the_intervals():
    table = curves(
        {"true": (10, 1), "model, H = 3": (5, 1), "model, H = 16": (9.5, 1)},
        {"true": (1, 0.1), "model, H = 3": (0.5, 0.1), "model, H = 16": (2, 0.1)},
    )
    found = double_pendulum_claims(table).set_index(["claim", "of"])["verdict"]
    assert found["lower variance than the true dynamics", "model, H = 3"] == "holds"
    assert found["lower variance than the true dynamics", "model, H = 16"] == "not shown at this size"
    assert found["higher ESNR than the true dynamics", "model, H = 3"] == "does not hold"
    assert found["higher ESNR than the true dynamics", "model, H = 16"] == "holds"
    assert found["ESNR beyond horizon 16 higher than with H = 3", "model, H = 16"] == "holds"
    assert set(double_pendulum_claims(table, decisive=False)["verdict"]) == {"not shown at this size"}
    inside = double_pendulum_claims(table.assign(setting=sweep.FEEDBACK), decisive=False).set_index("claim")["verdict"]
    assert set(inside["lower variance than the true dynamics"]) == {"not comparable"}
    assert set(inside["higher ESNR than the true dynamics"]) == {"not shown at this size"}


def test_a_failed_stage_says_which_and_why(tmp_path):
    broken = replace(tiny(), training=replace(tiny().training, lr=1e9, grad_norm=1e9))
    with pytest.raises(JobsFailedError, match=r"H = 16: NonFiniteError: update \d+: the .* is nan"):
        study.run_study(broken, tmp_path, progress=False)
