"""Policies from a published checkpoint: small files in the published layouts, through the same parameters as notebook 03."""

import dataclasses

import numpy as np
import pytest
import torch

from companion.mt80.parameters import MultitaskParameters
from companion.mt80.published_model import PublishedModel
from companion.mt80.shipped_model import SHIPPED, Artefacts
from companion.reporting.published import published_scores
from pwmlib.baselines.released_models import ReleasedAgent, load_released, save_released
from pwmlib.data.torch_files import ForeignFileError
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.pwm import PWMConfig
from pwmlib.settings import SettingError
from pwmlib.tasks import MT30, MT80

SMALL = WorldModelConfig(latent_dim=16, encoder_hidden=(24,), dynamics_hidden=(32, 32), reward_hidden=(32, 32), task_dim=12)
FAST = {
    "data.replay": None, "data.dm_control": {"uniform_random": 2, "correlated_random": 2}, "data.metaworld": {"scripted_noisy": 3},
    "policy.updates": 4, "policy.batch": 8, "policy.horizon": 4, "evaluate_every": 4, "eval_episodes": 1,
}  # fmt: skip


def checkpoint(path, tasks, obs_dim, config=SMALL):
    torch.manual_seed(0)
    save_released(path, WorldModel(obs_dim, 6, tasks=len(tasks), action_dims=[t.action_dim for t in tasks], config=config))
    return path


def parameters(folder, path, **more):
    given = {"task_names": ["cartpole-swingup"], "train_seeds": 1, "workers": 1, "device": "cpu", "overrides": FAST, **more}
    return MultitaskParameters(world_model=str(path), runs_dir=str(folder / "runs"), data_dir=str(folder / "episodes"), **given)


@pytest.mark.parametrize("tasks, obs_dim", [(MT30, 24), (MT80, 39)])
def test_a_policy_comes_from_the_checkpoint_and_its_published_score_stands_beside_it(tmp_path, tasks, obs_dim):
    params = parameters(tmp_path, checkpoint(tmp_path / "theirs.pt", tasks, obs_dim))
    experiment = params.experiment(progress=False)
    assert "measured now" in experiment.cost() and "published" in params.origin()
    assert dataclasses.replace(experiment.scale.policy, updates=10_000, batch=64, horizon=16) == PWMConfig(), "Table 1's"
    quality = experiment.train_world_model()["quality"]["cartpole-swingup"]
    assert {"correlation_first", "slope_last"} <= set(quality)
    table = experiment.results()
    assert table["published_score"].tolist() == [published_scores(f"mt{len(tasks)}").loc["cartpole-swingup", "PWM, published"]]
    assert table["updates"].tolist() == [4] and np.isfinite(table["score"]).all() and table["planning_score"].isna().all()
    assert experiment.model_index(0) == tasks.index(experiment.tasks[0])
    assert not params.fine_tuning(experiment).tasks


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no artefacts are shipped")
def test_our_own_model_in_their_layout_gives_the_same_policies(tmp_path):
    model = Artefacts(SHIPPED).world_model()
    save_released(tmp_path / "ours.pt", model)
    read = load_released(tmp_path / "ours.pt").world_model
    assert read.config == model.config
    tables = []
    for name, given in {"exported": None, "original": ReleasedAgent(model, None, None, "0" * 64)}.items():
        experiment = parameters(tmp_path / name, tmp_path / "ours.pt", task_names=["mw-reach"]).experiment(progress=False)
        if given:
            published = PublishedModel(experiment.published.path)
            vars(published)["_agent"] = given
            experiment = dataclasses.replace(experiment, published=published)
        experiment.generate()
        tables.append(experiment.extract_policies())
    exported, original = tables
    assert exported[["score", "mean_return", "model_value"]].equals(original[["score", "mean_return", "model_value"]])
    assert np.isfinite(exported["model_value"]).all()


@pytest.mark.parametrize("change", [{"residual": True}, {"task_dim": 0}, {"activation": "relu"}, {"simnorm_group": 4}])
def test_a_model_that_the_layout_has_no_place_for_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match="save_released"):
        checkpoint(tmp_path / "c.pt", MT30, 24, dataclasses.replace(SMALL, **change))
    assert not (tmp_path / "c.pt").exists()


def test_what_does_not_go_with_a_checkpoint_is_said_before_anything_runs(tmp_path):
    path = checkpoint(tmp_path / "theirs.pt", MT30, 24)
    with pytest.raises(SettingError, match="no such file"):
        parameters(tmp_path, tmp_path / "absent.pt").experiment()
    with pytest.raises(ForeignFileError, match=r"MT30, which mw-reach is not in"):
        parameters(tmp_path, path, task_names=["mw-reach"]).experiment()
    for name, value in {"comparisons": ["one_policy"], "data": "shipped", "fine_tune": ["cartpole-swingup"]}.items():
        with pytest.raises(ValueError, match=f"{name}.*published world_model"):
            parameters(tmp_path, path, **{name: value})
    few = checkpoint(tmp_path / "few.pt", MT30[:7], 24)
    with pytest.raises(ForeignFileError, match="a model of 7 tasks; expected 30"):
        parameters(tmp_path, few).experiment()
    narrow = checkpoint(tmp_path / "narrow.pt", MT30, 20)
    with pytest.raises(ForeignFileError, match=r"\(20, 6\); those of MT30 are \(24, 6\)"):
        parameters(tmp_path, narrow).experiment()
