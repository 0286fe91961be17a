"""Scales as the notebooks read them: the values that name run folders, and what is said of a table that is wrong."""

import pytest

from companion.ablations.questions import ABLATIONS, ablation_experiments
from companion.ball_wall.study import BALL_WALL_SCALES
from companion.double_pendulum.training import DOUBLE_PENDULUM_SCALES
from companion.mt80.scales import MULTITASK_SCALES, OFFLINE_CARTPOLE, ONLINE, multitask_scale
from companion.running.parameters import read_scales
from companion.running.runs import digest
from companion.single_task.scales import SINGLE_TASK_SCALES, settings_for
from pwmlib.errors import ExplainedError
from pwmlib.optimizer.online_robots import OnlinePWMConfig

RECORDED = {
    "ball_wall": {"quick": "585bca8d06", "laptop": "aee38b63a4", "paper": "099c67c310"},
    "double_pendulum": {"quick": "027a4cd347", "laptop": "c42355b331", "paper": "5b6a320975"},
    "single_task": {"quick": "8b5d549657", "laptop": "f0c159aa7f", "paper": "fcf499d7db"},
    "single_task, muscles": {"quick": "f84c9631da", "laptop": "a55ec7d9c8", "paper": "fcf499d7db"},
    "mt80": {"quick": "7077608075", "laptop": "8d209a5820", "overnight": "dcb29ede9d", "paper": "8cf1256de3"},
    "mt80, 30 tasks, released": {"quick": "22e3c60c74", "laptop": "ed39b59eea", "overnight": "ed39b59eea", "paper": "e0e8ce28f1"},
    "mt80, cartpole": {"H = 16, lr 3e-4": "6575abf3f3", "H = 16, lr 1e-3": "9e798a5be6", "H = 8, lr 1e-3": "9e6d62e81c"},
    "mt80, online": {"SimNorm": "768c5944ef", "state-space": "ae954ae7f9"},
    "ablations": {"quick": "109ed10cff", "laptop": "71f2db2154", "paper": "58ffe63b96"},
}


def digests():
    """Of the settings of every scale, by notebook."""
    variations = {
        scale: [e.settings for name in ABLATIONS for e in ablation_experiments(name, scale, 1, "runs").values()]
        for scale in SINGLE_TASK_SCALES
    }
    tables = {
        "ball_wall": BALL_WALL_SCALES,
        "double_pendulum": DOUBLE_PENDULUM_SCALES,
        "single_task": SINGLE_TASK_SCALES,
        "single_task, muscles": {scale: settings_for(scale, "snu_like") for scale in SINGLE_TASK_SCALES},
        "mt80": MULTITASK_SCALES,
        "mt80, 30 tasks, released": {scale: multitask_scale(scale, 30, "released") for scale in MULTITASK_SCALES},
        "mt80, cartpole": OFFLINE_CARTPOLE,
        "mt80, online": ONLINE,
        "ablations": variations,
    }
    return {name: {scale: digest(settings) for scale, settings in table.items()} for name, table in tables.items()}


def test_settings_of_every_scale_are_those_that_recorded_runs_are_named_by():
    assert digests() == RECORDED


WRONG = [
    ("columns = [", "not a TOML file"),
    ("updates = 3", "columns=None is not allowed: must be a list of the scales' names"),
    ("columns = ['a', 'b']\nmodel_updates = [1, 2, 3]", r"model_updates=\[1, 2, 3\] is not allowed: must have a value for each of a, b"),
    (
        "columns = ['a']\nmodel_updatez = [1]",
        "model_updatez=1 is not allowed: no setting 'model_updatez'; OnlinePWMConfig has actor_critic, ",
    ),
    ("columns = ['a']\nmodel_updates = [-1]", "model_updates=-1 is not allowed: must be greater than or equal to 0"),
    ("columns = ['a']\n[model]\nlatent_dim = ['wide']", "model.latent_dim='wide' is not allowed: must be a valid integer"),
    ("columns = ['a']\nmodel.two_hot.bins = [1]", "model.two_hot.bins=1 is not allowed: must be greater than or equal to 2"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_table_is_refused_by_file_and_setting(text, said, tmp_path):
    (tmp_path / "scales.toml").write_text(text)
    with pytest.raises(ExplainedError, match=rf"{tmp_path}/scales.toml: {said}"):
        read_scales(tmp_path / "scales.toml", OnlinePWMConfig)


def test_what_a_table_may_say(tmp_path):
    (tmp_path / "scales.toml").write_text(
        "columns = ['a', 'b', 'c']\nmodel_updates = 7\nmodel.two_hot = ['-', {}, '-']\n"
        "training.final_lr = ['-', 'None', 1]\n[parameters]\nmodel_updates = [1, 2, '-']\n"
    )
    scales, default = read_scales(tmp_path / "scales.toml", OnlinePWMConfig), OnlinePWMConfig()
    assert [s.model_updates for s in scales.values()] == [7, 7, 7]
    assert [s.model.two_hot is None for s in scales.values()] == [True, False, True]
    assert [repr(s.training.final_lr) for s in scales.values()] == [repr(default.training.final_lr), "None", "1.0"]
    beside = read_scales(tmp_path / "scales.toml", OnlinePWMConfig, parameters=True)
    assert [s.model_updates for s in beside.values()] == [1, 2, default.model_updates] and beside["c"] == default
