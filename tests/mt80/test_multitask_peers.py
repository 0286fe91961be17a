"""TD-MPC2, one policy for all tasks and the training horizon, beside the experiment's own policies at a tiny size."""

import dataclasses

import pytest
import torch
from test_multitask import tiny_experiment

from companion.mt80.figures import compared_scores
from companion.mt80.peers import MultitaskPeers, TaskOfMany
from companion.running.parameters import override
from pwmlib.model.frozen import FrozenMultiTaskModel, FrozenWorldModel

SMALL = {
    "training.updates": 20,
    "policy.updates": 6,
    "evaluate_every": 3,
    "one_policy.updates": 6,
    "one_policy.horizon": 3,
    "one_policy.batch": 8,
    "tdmpc2.updates": 8,
    "tdmpc2.batch": 8,
    "tdmpc2.hidden": (16,),
    "tdmpc2_planner.samples": 16,
    "tdmpc2_planner.elites": 4,
    "tdmpc2_planner.prior_samples": 2,
    "tdmpc2_planner.iterations": 1,
}


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    experiment = tiny_experiment(tmp_path_factory.mktemp("peers"))
    scale = dataclasses.replace(override(experiment.scale, SMALL), collection=None)
    experiment = dataclasses.replace(experiment, scale=scale)
    experiment.generate()
    return MultitaskPeers(experiment, (0, 1))


@pytest.mark.parametrize(
    ("comparison", "methods", "lines"),
    [
        ("tdmpc2", ["PWM, a policy a task", "TD-MPC2, planning", "TD-MPC2, prior only"], 4 + 2 + 2),
        ("one_policy", ["PWM, a policy a task", "PWM, one policy for all tasks"], 4 + 4),
        pytest.param("horizon", ["world model of H = 3", "world model of H = 16"], 4 + 4, marks=pytest.mark.long),
    ],
)
def test_a_comparison_has_every_method_on_every_task(peers, comparison, methods, lines, monkeypatch):
    table = peers.table(comparison)
    assert list(dict.fromkeys(table["method"])) == methods and len(table) == lines
    assert table["score"].between(0, 100).all() and table["task"].nunique() == 2
    figure = compared_scores(table, "test")
    labels = [" ".join(t.get_text().split()) for t in figure.axes[1].get_xticklabels()]
    assert [label.rpartition(" (")[0] for label in labels] == methods
    # Nothing is trained twice.
    monkeypatch.setattr("companion.mt80.peers.train", lambda *a, **k: pytest.fail("trained again"))
    assert peers.table(comparison).equals(table)


def test_horizons_train_different_models_on_the_same_episodes(peers):
    e = peers.experiment
    runs = []
    for horizon in (3, 16):
        scale = dataclasses.replace(e.scale, training=dataclasses.replace(e.scale.training, horizon=horizon))
        runs.append(dataclasses.replace(e, scale=scale).world_model_run())
    assert runs[0].folder != runs[1].folder and runs[0].params["data"] == runs[1].params["data"]


def test_one_policy_sees_each_task_as_the_model_does(peers):
    model = peers.experiment._new_model()
    many, obs = FrozenMultiTaskModel(model), torch.randn(5, 3, model.obs_dim)
    for i, t in enumerate(peers.experiment.tasks):
        state = TaskOfMany(many, i).encode(obs)
        z, e, mask = state.tensor_split([many.model.latent_dim, -many.action_dim], -1)
        torch.testing.assert_close(z, FrozenWorldModel(model, i).encode(obs))
        assert torch.equal(e[0, 0], model.task_embedding.weight[i].detach()) and mask[0, 0].sum() == t.action_dim


def test_an_online_run_continues_where_it_was_cut(tmp_path, monkeypatch):
    from companion.mt80 import online as online_study
    from pwmlib.optimizer.online_episodes import OnlineAgent

    few = {"episodes": 3, "random_episodes": 1, "model_updates": 2, "policy_updates": 2, "first_model_updates": 3}
    monkeypatch.setitem(online_study.ONLINE, "tiny", dataclasses.replace(online_study.ONLINE["SimNorm"], **few))
    monkeypatch.setattr(online_study, "EVALUATE_EVERY", 2)
    whole = online_study.online_seed("pendulum-spin", "tiny", 0, tmp_path / "whole")
    assert [row["episodes"] for row in whole] == [2, 4] and all(0 <= row["mean_return"] <= 1000 for row in whole)
    advance, done = OnlineAgent.advance, []

    def dies(self):
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(OnlineAgent, "advance", dies)
    with pytest.raises(KeyboardInterrupt):
        online_study.online_seed("pendulum-spin", "tiny", 0, tmp_path / "cut")
    assert online_study.online_seed("pendulum-spin", "tiny", 0, tmp_path / "cut") == whole
