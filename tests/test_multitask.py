"""The pipeline of notebook 03 at a tiny size: kill -9 in every stage, and the same table as without."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from pwmlib.multitask import MultitaskExperiment, StageFailedError
from pwmlib.parameters import override
from pwmlib.scales import MULTITASK_SCALES
from pwmlib.tasks import select_tasks

TINY = {
    "data.dm_control": {"uniform_random": 2},
    "data.metaworld": {"scripted_noisy": 3},
    "data.replay.episodes": 1,
    "data.replay.random_episodes": 2,
    "data.replay.first_model_updates": 3,
    "data.replay.model_updates": 2,
    "data.replay.policy_updates": 2,
    "training.updates": 300,
    "training.batch": 16,
    "policy.updates": 300,
    "policy.horizon": 5,
    "policy.batch": 8,
    "planner.samples": 8,
    "planner.horizon": 4,
    "planner.elites": 2,
    "eval_episodes": 1,
    "evaluate_every": 150,
    "checkpoint_every": 3,
}


def tiny_experiment(root, **changes):
    scale = override(MULTITASK_SCALES["quick"], {**TINY, **changes})
    tasks = select_tasks(2, ["cartpole-swingup", "mw-reach"])
    return MultitaskExperiment(tasks, scale, 2, root / "runs", root / "data", device="cpu", workers=2, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run and its table."""
    experiment = tiny_experiment(tmp_path_factory.mktemp("whole"))
    return experiment, experiment.results()


def test_table_has_every_policy_with_all_that_it_is_judged_by(whole):
    experiment, table = whole
    assert len(table) == 4 and table["train_seed"].tolist() == [0, 1, 0, 1]
    needed = ["score", "best_score", "random_score", "planning_score", "data_p10", "data_p50", "data_p90", "model_value", "real_value"]
    assert table[needed].notna().all().all()
    assert table["score"].between(0, 100).all() and (table["best_score"] >= table["score"]).all()
    pd.testing.assert_frame_equal(pd.read_csv(experiment.folder / "results.csv"), table, check_exact=False)
    other = tiny_experiment(experiment.runs_dir.parent, **{"data.metaworld": {"scripted_noisy": 4}})
    assert experiment.folder != dataclasses.replace(other, data_dir=experiment.runs_dir / "elsewhere").folder
    index = experiment.generate()
    assert index[index.task == "cartpole-swingup"]["behaviour"].value_counts()["learning_agent"] == 1


def test_a_finished_experiment_trains_nothing_again(whole, monkeypatch):
    experiment, table = whole
    monkeypatch.setattr("pwmlib.runs.train", lambda *a, **k: pytest.fail("trained again"))
    before = {p: p.stat().st_mtime_ns for p in experiment.runs_dir.rglob("state.safetensors")}
    pd.testing.assert_frame_equal(experiment.results(), table)
    assert before == {p: p.stat().st_mtime_ns for p in experiment.runs_dir.rglob("state.safetensors")}


@pytest.mark.parametrize("stage", ["world_model", "policy"])
def test_kill_9_in_a_training_stage_gives_the_same_table(stage, whole, tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_multitask import tiny_experiment\n"
        "if __name__ == '__main__': tiny_experiment(pathlib.Path(sys.argv[2])).results()"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), os.path.dirname(__file__), str(tmp_path)])
    deadline = time.time() + 120
    while not list((tmp_path / "runs" / stage).glob("*/state.safetensors")) and time.time() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2)  # its workers notice and leave
    interrupted = [p.parent for p in (tmp_path / "runs" / stage).glob("*/state.safetensors") if not (p.parent / "result.json").exists()]
    assert interrupted, "the stage had ended before it could be killed"
    table = tiny_experiment(tmp_path).results()
    pd.testing.assert_frame_equal(table, whole[1], check_exact=True)


def test_a_failing_stage_names_its_job_and_reason(tmp_path):
    experiment = tiny_experiment(tmp_path, **{"policy.min_log_std": float("nan")})
    with pytest.raises(StageFailedError, match=r"cartpole-swingup seed 0: NonFiniteError: update 1: the actor loss is nan"):
        experiment.results()
