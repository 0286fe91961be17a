"""The pipeline of notebook 03 at a tiny size: kill -9 in every stage, and the same table as without."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from companion.mt80.scales import MULTITASK_SCALES, AgentsPlan, CollectionPlan, FineTuningPlan
from companion.mt80.shipped_model import Artefacts, ship
from companion.mt80.stages import MultitaskExperiment
from companion.running.jobs import JobsFailedError
from companion.running.parameters import override
from companion.running.paths import PROJECT
from companion.running.runs import Run
from companion.running.sweep import note_plan, status, summary
from pwmlib.data.checkpoints import CheckpointError
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.optimizer.pwm import PWM
from pwmlib.tasks import select_tasks, task

TINY = {
    "data.dm_control": {"uniform_random": 2},
    "data.metaworld": {"scripted_noisy": 3},
    "data.replay.episodes": 1,
    "data.replay.random_episodes": 2,
    "data.replay.first_model_updates": 3,
    "data.replay.model_updates": 2,
    "data.replay.policy_updates": 2,
    "training.updates": 20,
    "training.batch": 16,
    "policy.updates": 12,
    "policy.horizon": 5,
    "policy.batch": 8,
    "planner.samples": 8,
    "planner.horizon": 4,
    "planner.elites": 2,
    "eval_episodes": 1,
    "evaluate_every": 6,
    "checkpoint_every": 3,
}
LONG_ENOUGH_TO_KILL = {"training.updates": 120, "policy.updates": 120, "evaluate_every": 60}


def tiny_experiment(root, **changes):
    scale = override(MULTITASK_SCALES["quick"], {**TINY, **changes})
    few = dataclasses.replace(override(MULTITASK_SCALES["quick"], TINY).policy, updates=4)
    again = dataclasses.replace(scale.training, updates=4)
    scale = dataclasses.replace(scale, collection=CollectionPlan(rounds=1, episodes=3, stages=2, policy=few, training=again))
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
    monkeypatch.setattr("companion.mt80.stages.train", lambda *a, **k: pytest.fail("trained again"))
    before = {p: p.stat().st_mtime_ns for p in experiment.runs_dir.rglob("state.safetensors")}
    pd.testing.assert_frame_equal(experiment.results(), table)
    assert before == {p: p.stat().st_mtime_ns for p in experiment.runs_dir.rglob("state.safetensors")}


def test_policies_collect_what_the_world_model_trains_on_next(whole):
    experiment, _ = whole
    before = dataclasses.replace(experiment, round=0)
    for t in experiment.tasks:
        added = set(experiment.store(t).shards()) - set(before.store(t).shards())
        assert added == {before.collected_shard()}
        index = experiment.store(t).index()
        collected = index[index["shard"].isin(added)]
        assert collected["behaviour"].eq("policy_round_1").all() and collected["seed"].nunique() == 3
    assert experiment.data()["episodes"].tolist() == [5, 3], "the policies' episodes do not count as the data that policies are judged by"
    assert experiment.data_by_behaviour()["behaviour"].nunique() >= 3
    found = experiment.collections()
    assert found[["round", "updates"]].drop_duplicates().to_numpy().tolist() == [[1, 2], [1, 4]]
    # Round 1 continues the weights of round 0, with its standardisation.
    first, last = before.load_world_model(), experiment.load_world_model()
    torch.testing.assert_close(last.obs_mean, first.obs_mean, rtol=0, atol=0)
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(first.parameters(), last.parameters(), strict=True))
    assert 0 < moved < 4 * 1.1 * experiment.scale.training.lr, "four Adam steps from the round before"


def test_lost_episodes_of_policies_are_collected_again(tmp_path):
    experiment = tiny_experiment(tmp_path, **{"training.updates": 5})
    experiment.generate()
    experiment.train_world_model()
    before = dataclasses.replace(experiment, round=0)
    store = experiment.store(experiment.tasks[0])
    rows = store.read(before.collected_shard())[0].copy()
    (store.folder / f"{before.collected_shard()}.json").unlink()
    experiment.collections()
    np.testing.assert_array_equal(store.read(before.collected_shard())[0], rows)


STAGES = {
    "episodes": "data/*/*.json",
    "world_model": "runs/world_model/*/state.safetensors",
    "collection": "runs/collection/*/run.json",
    "planning": "runs/gate/*/run.json",
    "policy": "runs/policy/*/state.safetensors",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The table of a longer run that nobody kills."""
    return tiny_experiment(tmp_path_factory.mktemp("undisturbed"), **LONG_ENOUGH_TO_KILL).results()


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_in_any_stage_gives_the_same_table(stage, undisturbed, tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_multitask import LONG_ENOUGH_TO_KILL, tiny_experiment\n"
        "if __name__ == '__main__': tiny_experiment(pathlib.Path(sys.argv[2]), **LONG_ENOUGH_TO_KILL).results()"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), os.path.dirname(__file__), str(tmp_path)], start_new_session=True)
    deadline = time.time() + 600
    while not list(tmp_path.glob(STAGES[stage])) and time.time() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)  # its workers too
    process.wait()
    if stage == "episodes":
        assert not list(tmp_path.glob("runs/world_model/*")), "the stage had ended before it could be killed"
    else:
        interrupted = [p for p in tmp_path.glob(STAGES[stage]) if not (p.parent / "result.json").exists()]
        assert interrupted, "the stage had ended before it could be killed"
    table = tiny_experiment(tmp_path, **LONG_ENOUGH_TO_KILL).results()
    pd.testing.assert_frame_equal(table, undisturbed, check_exact=True)


def test_a_failing_stage_names_its_job_and_reason(whole):
    experiment, _ = whole
    experiment = dataclasses.replace(experiment, scale=override(experiment.scale, {"policy.min_log_std": 200.0}))
    with pytest.raises(JobsFailedError, match=r"cartpole-swingup seed 0: NonFiniteError: update \d+: the actor [a-z ]+ is nan"):
        experiment.results()


def test_an_experiment_starts_from_shipped_artefacts(whole, tmp_path):
    experiment, _ = whole
    model, tasks = experiment.load_world_model(), experiment.tasks
    quality = pd.DataFrame([{"task": t.name, "correlation_last": 0.5} for t in tasks])
    artefacts = ship(
        tmp_path / "models", model, [experiment.store(t) for t in tasks], settings=experiment.scale, command="test",
        tables={"data": experiment.data(), "quality": quality, "behaviours": experiment.data_by_behaviour()},
        policies={"mw-reach": {3: PWM(FrozenWorldModel(model, 1), None, experiment.scale.policy).actor}},
        states=20,
    )  # fmt: skip
    again = Artefacts(tmp_path / "models")
    assert again.tasks == tasks and again.fingerprint == artefacts.fingerprint and again.card["command"] == "test"
    obs = torch.randn(3, model.obs_dim)
    torch.testing.assert_close(again.world_model().encode(obs, torch.tensor(1)), model.encode(obs, torch.tensor(1)))
    assert again.starts["mw-reach"].shape == (20, 39) and again.policies()["mw-reach"][3].action_dim == 4
    only = dataclasses.replace(
        experiment, tasks=tasks[1:], shipped=again, data_dir=tmp_path / "unused", runs_dir=tmp_path / "runs",
        scale=override(experiment.scale, {"policy.updates": 3, "evaluate_every": 3}), train_seeds=1,
    )  # fmt: skip
    table = only.results()
    assert list(table["task"]) == ["mw-reach"] and table["updates"].eq(3).all() and not (tmp_path / "unused").exists()
    found = summary(status(tmp_path / "runs")).set_index("stage")
    assert found.loc["policy", "finished"] == 1 and found.loc["gate", "finished"] == 1
    with pytest.raises(CheckpointError, match="trained on 2 tasks, walker-walk is not among them"):
        again.index(task("walker-walk"))
    with pytest.raises(CheckpointError, match="no readable model card"):
        _ = Artefacts(tmp_path / "nothing").card


def test_the_cost_names_what_is_to_be_done_and_nothing_else(tmp_path):
    from_nothing = tiny_experiment(tmp_path)
    imported = dataclasses.replace(from_nothing, chunks=(tmp_path / "chunk_0.pt",))
    assert "episodes, about" in from_nothing.cost() and "a world model with its rounds of collection" in from_nothing.cost()
    assert "episodes, about" not in imported.cost() and "a world model with its rounds of collection" in imported.cost()


@pytest.mark.long
def test_agents_go_on_from_shipped_artefacts_with_some_of_its_tasks(whole, tmp_path):
    experiment, _ = whole
    model, t = experiment.load_world_model(), experiment.tasks[1]
    quality = pd.DataFrame([{"task": t.name, "correlation_last": 0.5}])
    tables = {"data": experiment.data(), "quality": quality, "behaviours": experiment.data_by_behaviour()}
    stores = [experiment.store(t) for t in experiment.tasks]
    shipped = ship(tmp_path / "models", model, stores, settings=experiment.scale, command="test", tables=tables, states=20)
    short = dataclasses.replace(experiment.scale.training, updates=3, horizon=4, batch=8)
    few = dataclasses.replace(experiment.scale.policy, updates=2)
    learning = FineTuningPlan(episodes=2, first_episodes=1, first_model_updates=1, model_updates=1, policy_updates=1, training=short)
    agents = AgentsPlan(stages=1, agent=learning, policy=few, training=short)
    scale = dataclasses.replace(experiment.scale, agents=agents, policy=few, evaluate_every=2)
    more = dataclasses.replace(experiment, tasks=(t,), shipped=shipped, scale=scale, train_seeds=1, runs_dir=tmp_path / "runs")
    assert "agents of all tasks and a world model from their replays, 1 times" in more.cost()
    assert more.results()["task"].tolist() == ["mw-reach"]
    assert more.world_model_run().params["continues"] == f"shipped-{shipped.fingerprint}"
    index = more.store(t).index()
    assert index["behaviour"].value_counts().to_dict() == {"scripted_noisy": 3, "agent_round_1": 3}
    before, after = (m.state_dict()["task_embedding.weight"] for m in (model, more.load_world_model()))
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert (after[1] - before[1]).abs().max() > 0, "the model knows the task by its number among the shipped ones"
    assert more.evaluate_shipped().empty, "shipped policies are those of the shipped model"


def test_status_tells_what_is_left_and_why(tmp_path):
    runs = [Run(tmp_path, "policy", name, {}) for name in ("done", "failed", "killed", "absent")]
    note_plan(tmp_path, "policies", runs)
    runs[0].execute(lambda run: 1)
    with pytest.raises(ValueError, match="on purpose"):
        runs[1].execute(lambda run: (_ for _ in ()).throw(ValueError("on purpose")))
    runs[2].folder.mkdir(parents=True)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    record = {"status": "running", "pid": int(ended.stdout), "host": os.uname().nodename}
    (runs[2].folder / "run.json").write_text(json.dumps(record))
    table = status(tmp_path).set_index("name")
    assert table["status"].to_dict() == {"done": "finished", "failed": "failed", "killed": "interrupted", "absent": "missing"}
    assert table.loc["failed", "reason"] == "ValueError: on purpose"
    record["pid"] = os.getpid()
    (runs[2].folder / "run.json").write_text(json.dumps(record))
    assert status(tmp_path).set_index("name").loc["killed", "status"] == "running"
    command = [sys.executable, "-m", "companion.running.sweep", "status", "--runs-dir", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "failed: policy failed: ValueError: on purpose" in shown and shown.split("\n")[0].split()[:3] == ["stage", "finished", "running"]
    nothing = subprocess.run([*command[:-1], str(tmp_path / "none")], capture_output=True, text=True)
    assert nothing.returncode != 0 and "no sweep was planned there" in nothing.stderr


@pytest.mark.long
def test_ray_gives_the_same_table(whole, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the 'cluster' extra is not installed")
    experiment, _ = whole
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    on_ray = dataclasses.replace(experiment, tasks=experiment.tasks[:1], runs_dir=tmp_path / "runs", engine="ray")
    on_ray = dataclasses.replace(on_ray, scale=override(experiment.scale, {"policy.updates": 6, "evaluate_every": 6}))
    local = dataclasses.replace(on_ray, runs_dir=tmp_path / "local", engine="local")
    pd.testing.assert_frame_equal(on_ray.results(), local.results())


def test_policies_extracted_together_give_the_table_of_those_extracted_apart(whole, tmp_path):
    experiment, _ = whole
    scale = override(experiment.scale, {"policy.updates": 6, "evaluate_every": 3})
    apart = dataclasses.replace(experiment, scale=scale)  # the same trained world model
    together = dataclasses.replace(apart, stacked=True)
    ours, theirs = together.extract_policies(), apart.extract_policies()
    assert list(ours.columns) == list(theirs.columns) and ours[["task", "train_seed"]].equals(theirs[["task", "train_seed"]])
    for column in ("model_value", "real_value", "mean_return"):
        assert ours[column].to_numpy() == pytest.approx(theirs[column].to_numpy(), rel=2e-2, abs=1e-2)
    (run,) = (experiment.runs_dir / "policies_stacked").iterdir()
    planned = status(experiment.runs_dir).query("stage == 'policies_stacked'")
    assert planned[["name", "status"]].to_numpy().tolist() == [[run.name.rsplit("-", 1)[0], "finished"]]
