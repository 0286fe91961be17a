"""Rounds of collection by agents that learn: their replay is what the next shared world model trains on, and a killed one ends the same."""

import dataclasses
import shutil

import numpy as np
import pytest
from test_multitask import tiny_experiment

from companion.mt80.jobs import collection_job
from companion.mt80.scales import AgentsPlan, FineTuningPlan
from pwmlib.model.training import WorldModelTraining
from pwmlib.optimizer.online_episodes import OnlineAgent

PLAN = FineTuningPlan(
    episodes=4, first_episodes=1, first_model_updates=2, model_updates=2, policy_updates=1,
    training=WorldModelTraining(horizon=4, batch=8, lr=1e-4),
)  # fmt: skip


def experiment(root):
    """Cartpole, whose world model of round 1 learns from agents' episodes; nothing is run yet."""
    tiny = tiny_experiment(root, **{"training.updates": 5, "data.dm_control": {"uniform_random": 3}})
    collection = tiny.scale.collection
    agents = AgentsPlan(stages=2, agent=PLAN, policy=collection.policy, training=collection.training)
    data = dataclasses.replace(tiny.scale.data, replay=None)
    return dataclasses.replace(tiny, scale=dataclasses.replace(tiny.scale, data=data, collection=None, agents=agents), tasks=tiny.tasks[:1])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The same, with the world model of round 1."""
    found = experiment(tmp_path_factory.mktemp("agents"))
    found.generate()
    found.train_world_model()
    return found


def test_the_next_world_model_learns_from_the_whole_replay_of_every_agent(done):
    before = dataclasses.replace(done, round=0)
    for t in done.tasks:
        index = done.store(t).index()
        collected = index[index["shard"] == before.collected_shard()]
        assert collected["behaviour"].tolist() == ["agent_round_1"] * 5 and collected["seed"].nunique() == 5
    lines = done.collections()
    assert lines.groupby("task")["updates"].apply(list).tolist() == [[3, 5]], "policy updates after 2 and 4 own episodes"


@pytest.mark.long
def test_an_agent_learns_from_the_offline_episodes_and_its_own(done, monkeypatch):
    begun, replays = [], []

    def agent(*args, replay, **given):
        replays.append(replay)
        begun.append(OnlineAgent(*args, replay=replay, **given))
        return begun[-1]

    monkeypatch.setattr("companion.mt80.jobs.OnlineAgent", agent)
    before = dataclasses.replace(done, round=0)
    shutil.rmtree(before.collection_run(0).folder)
    collection_job(before, 0)
    assert sum(len(shard) for shard in replays[0]) == len(before.store(done.tasks[0]).index()) == 3
    whole = before.load_world_model().state_dict()["dynamics.1.weight"]
    assert 0 < (begun[0].model.state_dict()["dynamics.1.weight"] - whole).abs().max() < 1e-2, "a copy of the shared model, trained on"


@pytest.mark.long
def test_a_killed_agent_ends_with_the_same_episodes(done, monkeypatch):
    before, t = dataclasses.replace(done, round=0), done.tasks[0]
    rows = [np.array(a) for a in before.store(t).read(before.collected_shard())]
    shutil.rmtree(before.collection_run(0).folder)
    advance = OnlineAgent.advance

    def killed(agent):
        if len(agent.episodes) == 4:
            raise KeyboardInterrupt
        return advance(agent)

    monkeypatch.setattr(OnlineAgent, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        collection_job(before, 0)
    monkeypatch.undo()
    assert len(before.collection_run(0).load_checkpoint()["episodes"]) == 3
    collection_job(before, 0)
    for one, other in zip(before.store(t).read(before.collected_shard()), rows, strict=True):
        np.testing.assert_array_equal(one, other)
