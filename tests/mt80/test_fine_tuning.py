"""Online fine-tuning: a task's own copy of the world model computes the same, and policies learn on in resumable runs."""

import dataclasses
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from test_multitask import tiny_experiment

from companion.mt80.fine_tuning import FineTuning, fine_tuning_job, fine_tuning_run
from companion.mt80.online import one_task, one_task_policy
from companion.mt80.scales import MULTITASK_SCALES, FineTuningPlan
from pwmlib.model.training import WorldModelTraining
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.optimizer.online_episodes import OnlineAgent
from pwmlib.tasks import make, select_tasks

MODEL = WorldModelConfig(latent_dim=16, encoder_hidden=(24,), dynamics_hidden=(24,), reward_hidden=(24,), task_dim=4)


def random_model(config=MODEL, seed=0):
    """Three tasks with 3, 5 and 4 observations and 2, 1 and 3 actions."""
    torch.manual_seed(seed)
    model = WorldModel(5, 3, tasks=3, action_dims=[2, 1, 3], config=config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    model.set_statistics(torch.randn(3, 5), torch.rand(3, 5) + 0.5, 0.3, 2.0)
    return model


@pytest.mark.parametrize(("index", "obs_dim", "action_dim"), [(0, 3, 2), (1, 5, 1), (2, 4, 3)])
@pytest.mark.parametrize("changes", [{}, {"two_hot": None}, {"termination": True}, {"latent_norm": "none", "task_dim": 0}])
def test_the_part_of_one_task_computes_what_the_whole_model_does(index, obs_dim, action_dim, changes):
    whole = random_model(dataclasses.replace(MODEL, **changes))
    with torch.no_grad():  # standardised padding is zero, as in data
        whole.obs_mean[index, obs_dim:], whole.obs_std[index, obs_dim:] = 0.0, 1.0
    part = one_task(whole, index, obs_dim, action_dim)
    assert (part.tasks, part.obs_dim, part.action_dim) == (1, obs_dim, action_dim)
    obs, action = torch.zeros(7, 5), torch.zeros(7, 3)
    obs[:, :obs_dim], action[:, :action_dim] = torch.randn(7, obs_dim), torch.rand(7, action_dim) * 2 - 1
    own_obs, own_action = obs[:, :obs_dim], action[:, :action_dim].clone().requires_grad_()
    action.requires_grad_()
    there, here = torch.tensor(index), torch.tensor(0)
    z, own_z = whole.encode(obs, there), part.encode(own_obs, here)
    torch.testing.assert_close(own_z, z)
    torch.testing.assert_close(part.next(own_z, own_action, here), whole.next(z, action, there))
    rewards, own_rewards = whole.reward(z, action, there, symexp=True), part.reward(own_z, own_action, here, symexp=True)
    torch.testing.assert_close(own_rewards, rewards)
    rewards.sum().backward(), own_rewards.sum().backward()
    torch.testing.assert_close(own_action.grad, action.grad[:, :action_dim])
    assert own_action.grad.abs().min() > 0
    actor = Actor(16, 3, hidden=(8, 8))
    own = Actor(16, action_dim, hidden=(8, 8))
    own.load_state_dict(one_task_policy(actor.state_dict(), action_dim))
    torch.testing.assert_close(own(own_z), actor(z)[:, :action_dim])
    torch.testing.assert_close(own.std, actor.std[:action_dim])


@pytest.mark.parametrize("changes", [{"residual": True}, {"spectral_norm": True}])
def test_models_without_such_a_part_are_refused(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))}=True"):
        one_task(WorldModel(5, 3, tasks=2, config=dataclasses.replace(MODEL, **changes)), 0, 4, 2)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Fine-tuning of two tiny policies of cartpole-swingup, and its table."""
    experiment = tiny_experiment(tmp_path_factory.mktemp("tuned"), **{"training.updates": 5})
    short = WorldModelTraining(horizon=4, batch=8, lr=1e-4)
    plan = FineTuningPlan(
        policy="extracted", episodes=10, first_episodes=2, first_model_updates=3, model_updates=2, policy_updates=1, training=short
    )
    experiment = dataclasses.replace(experiment, scale=dataclasses.replace(experiment.scale, fine_tuning=plan))
    experiment.generate()
    fine_tuning = FineTuning(experiment, (0,))
    return fine_tuning, fine_tuning.table()


def test_each_policy_starts_as_extracted_and_learns_on(tuned):
    fine_tuning, table = tuned
    assert table[["train_seed", "own_episodes"]].to_numpy().tolist() == [[s, n] for s in (0, 1) for n in (0, 10, 12)]
    extracted = fine_tuning.experiment.extract_policies([0]).set_index("train_seed")
    first = table[table["own_episodes"] == 0].set_index("train_seed")
    for column in ("score", "mean_return", "model_value", "real_value"):
        np.testing.assert_allclose(first[column], extracted[column], rtol=1e-5)
    assert (table.groupby("train_seed")["model_value"].nunique() == 3).all(), "it was trained"
    state = fine_tuning_run(fine_tuning.experiment, 0, 0).load_checkpoint()
    assert [e["behaviour"] for e in state["episodes"]] == ["learning_agent"] * 12, "the first ones are the policy's too"
    assert state["trainer"]["step"] == 3 + 10 * 2 and state["learner"]["step"] == 11


@pytest.mark.long
def test_a_policy_may_start_anew_with_the_trained_model(tuned):
    fine_tuning, table = tuned
    e = fine_tuning.experiment
    plan = dataclasses.replace(e.scale.fine_tuning, policy="anew")
    anew = dataclasses.replace(e, scale=dataclasses.replace(e.scale, fine_tuning=plan))
    assert fine_tuning_run(anew, 0, 0).folder != fine_tuning_run(e, 0, 0).folder
    lines = fine_tuning_job(anew, 0, 0)
    assert [line["own_episodes"] for line in lines] == [0, 10, 12] and lines[0]["model_value"] != table["model_value"][0]
    state = fine_tuning_run(anew, 0, 0).load_checkpoint()
    behaviours = [e["behaviour"] for e in state["episodes"]]
    assert behaviours == ["uniform_random", "correlated_random"] + ["learning_agent"] * 10
    whole, part = e.load_world_model(), state["trainer"]["model"]["dynamics.1.weight"]
    change = (part - whole.state_dict()["dynamics.1.weight"]).abs().max()
    assert 0 < change < 23 * 1.1e-4, "23 Adam steps of 1e-4 from the trained model"


def test_the_cost_grows_with_what_is_asked(tuned):
    fine_tuning, _ = tuned
    assert dataclasses.replace(fine_tuning, tasks=()).cost() == ""
    e = fine_tuning.experiment
    laptop = dataclasses.replace(e, scale=MULTITASK_SCALES["laptop"], train_seeds=3)
    line = dataclasses.replace(fine_tuning, experiment=laptop).cost()
    minutes = int(line.split("about ")[1].split()[0])
    assert "3 policies, 80 episodes each" in line and 5 <= minutes <= 30
    assert "about 0 min" in fine_tuning.cost()


@pytest.mark.long
def test_an_interrupted_fine_tuning_ends_the_same(tuned, monkeypatch):
    fine_tuning, table = tuned
    run = fine_tuning_run(fine_tuning.experiment, 0, 0)
    whole = run.load_checkpoint()
    shutil.rmtree(run.folder)
    monkeypatch.setattr("companion.mt80.jobs.OnlineAgent", _Killed)
    with pytest.raises(RuntimeError, match="killed here"):
        fine_tuning_job(fine_tuning.experiment, 0, 0)
    monkeypatch.undo()
    assert len(run.load_checkpoint()["episodes"]) == 10
    again = pd.DataFrame(fine_tuning_job(fine_tuning.experiment, 0, 0))
    np.testing.assert_array_equal(again["mean_return"], table[table["train_seed"] == 0]["mean_return"])
    for name, value in whole["trainer"]["model"].items():
        torch.testing.assert_close(run.load_checkpoint()["trainer"]["model"][name], value, rtol=0, atol=0)


class _Killed(OnlineAgent):
    def advance(self):
        if len(self.episodes) == 11:
            raise RuntimeError("killed here")
        return super().advance()


def test_offline_episodes_are_learned_from_before_and_after_a_continuation():
    t = select_tasks(1, ["cartpole-swingup"])[0]
    shard = np.random.default_rng(0).random((3, t.decisions + 1, t.obs_dim + t.action_dim + 1), dtype=np.float32)
    agent = OnlineAgent(make(t), replay=[shard])
    assert agent.data.start_observations(0, 50, np.random.default_rng(0)).min() >= 0
    agent.load_state_dict(agent.state_dict())
    rows = agent.data.slices(4, 2, np.random.default_rng(1))[2]
    assert np.isin(rows.numpy(), shard[..., -1]).all()


@pytest.mark.long
def test_the_figure_has_a_panel_a_task(tuned):
    from companion.mt80.figures import fine_tuning_curves

    fine_tuning, table = tuned
    figure = fine_tuning_curves(table, fine_tuning.experiment.results())
    assert [ax.get_title() for ax in figure.axes] == ["cartpole-swingup"]
    lines = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(lines[1], table[table["train_seed"] == 1]["score"])
    plt.close(figure)
