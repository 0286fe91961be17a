"""Published file formats: small files of each, made here; the samples beside the project where they are; hostile and broken files."""

import dataclasses
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from pwmlib.baselines.released_models import load_released
from pwmlib.data import EpisodeStore, SliceSampler
from pwmlib.data.published_chunks import import_chunks, read_single_task_data
from pwmlib.data.torch_files import ForeignFileError, read_torch_file
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.tasks import MT30, MT80

SAMPLES = REFERENCE / "formats"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not beside the project")
TINY = WorldModelConfig(latent_dim=16, encoder_hidden=(24,), dynamics_hidden=(32, 32), reward_hidden=(32, 32), task_dim=64)


def _make_td(cls, state):
    raise AssertionError("never called when reading")


_make_td.__module__ = "tensordict._reductions"


def saved(path, content, style, monkeypatch):
    """torch.save of an object with TensorDict's published name and layout, without that package."""
    module = "tensordict.tensordict" if style == "2023" else "tensordict._td"
    cls = type("TensorDict", (), {"__module__": module})
    if style == "new":
        cls.__reduce__ = lambda self: (_make_td, (cls, self.__dict__))
    fake, reductions = types.ModuleType(module), types.ModuleType("tensordict._reductions")
    fake.TensorDict, reductions._make_td = cls, _make_td
    for name, value in {"tensordict": types.ModuleType("tensordict"), module: fake, "tensordict._reductions": reductions}.items():
        monkeypatch.setitem(sys.modules, name, value)
    instance = cls()
    instance.__dict__.update({"_tensordict": content, "_batch_size": torch.Size([1]), "_device": None})
    torch.save(instance, path)
    return path


def chunk(tasks=MT30, length=9, episodes=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    ids = torch.arange(episodes) % 3 + 8  # cartpole-balance, -balance-sparse, -swingup
    width = max(t.obs_dim for t in tasks)
    obs, action = torch.zeros(episodes, length, width), torch.zeros(episodes, length, 6)
    for e, i in enumerate(ids.tolist()):
        obs[e, :, : tasks[i].obs_dim] = torch.randn(length, tasks[i].obs_dim, generator=g)
        action[e, :, : tasks[i].action_dim] = torch.randn(length, tasks[i].action_dim, generator=g).clamp(-1, 1)
    reward = torch.rand(episodes, length, generator=g)
    action[:, 0], reward[:, 0] = torch.nan, torch.nan
    return {"obs": obs, "action": action, "reward": reward, "task": ids[:, None].expand(-1, length).clone()}


@pytest.mark.parametrize("style", ["2023", "new"])
def test_chunks_become_shards_of_the_store(tmp_path, monkeypatch, style):
    content = chunk()
    path = saved(tmp_path / "chunk_0.pt", content, style, monkeypatch)
    table = import_chunks([path], tmp_path / "data", MT30, progress=False)
    assert dict(zip(table["task"], table["episodes"], strict=True)) == {t.name: 2 for t in MT30[8:11]}
    store = EpisodeStore(tmp_path / "data", MT30[10])
    rows, described = store.read("chunk_0-0000")
    assert rows.shape == (2, 9, 7) and np.isnan(rows[:, 0, 5:]).all()
    np.testing.assert_array_equal(rows[1, :, :5], content["obs"][5, :, :5])
    np.testing.assert_array_equal(rows[1, 1:, 5], content["action"][5, 1:, 0])
    assert described[1]["return"] == pytest.approx(float(content["reward"][5, 1:].sum()), rel=1e-6)
    obs, action, reward, _ = SliceSampler([MT30[10]], [store.arrays()]).slices(4, 3, np.random.default_rng(0))
    assert torch.isfinite(obs).all() and torch.isfinite(action).all() and torch.isfinite(reward).all()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.npy")}
    import_chunks([path], tmp_path / "data", MT30, progress=False)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.npy")} == stamps
    saved(path, chunk(seed=1), style, monkeypatch)
    with pytest.raises(ForeignFileError, match="was imported under that name before"):
        import_chunks([path], tmp_path / "data", MT30, progress=False)


def test_a_chunk_of_the_wrong_shape_or_content_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "chunk_0.pt", chunk(), "2023", monkeypatch)
    with pytest.raises(ForeignFileError, match=r"expected obs \[E, L, 39\].*got .*\(6, 9, 24\)"):
        import_chunks([path], tmp_path / "data", MT80, progress=False)
    torch.save({"obs": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ForeignFileError, match="a chunk holds obs, action, reward, task; found"):
        import_chunks([tmp_path / "other.pt"], tmp_path / "data", MT30, progress=False)
    mixed = chunk()
    mixed["task"][0, 3] = 1
    path = saved(tmp_path / "mixed.pt", mixed, "2023", monkeypatch)
    with pytest.raises(ForeignFileError, match="task must be one id below 30 in each episode"):
        import_chunks([path], tmp_path / "data", MT30, progress=False)


def test_an_experiment_takes_chunks_instead_of_generating(tmp_path, monkeypatch):
    from companion.mt80.experiment import StageFailedError
    from companion.mt80.parameters import MultitaskParameters
    from companion.mt80.scales import MULTITASK_SCALES
    from companion.mt80.stages import MultitaskExperiment
    from companion.running.parameters import ParameterError

    saved(tmp_path / "chunk_0.pt", chunk(), "2023", monkeypatch)
    experiment = MultitaskExperiment(
        MT30[9:11], MULTITASK_SCALES["quick"], 1, tmp_path / "runs", tmp_path / "data", progress=False, chunks=(tmp_path / "chunk_0.pt",)
    )
    data = experiment.data()
    assert list(data["task"]) == [t.name for t in MT30[9:11]] and data["episodes"].eq(2).all() and data["data_success"].isna().all()
    with pytest.raises(StageFailedError, match="chunks of MT30, which mw-assembly are not in"):
        dataclasses.replace(experiment, tasks=(MT80[30],)).data()
    good = {"scale": "quick", "tasks": 4, "task_names": [], "data": str(tmp_path), "train_seeds": 0, "engine": "local", "workers": 1,
            "device": "cpu", "data_dir": str(tmp_path / "data"), "variant": "paper", "comparisons": [], "compared_tasks": 12,
            "fine_tune": [], "runs_dir": str(tmp_path / "runs"),
            "figures_dir": "", "overrides": {}}  # fmt: skip
    assert MultitaskParameters.validate_cell(good).experiment().chunks == (tmp_path / "chunk_0.pt",)
    for data, tasks, scale, shipped in (("auto", 4, "quick", False), ("auto", 80, "quick", True), ("auto", 80, "laptop", False)):
        params = MultitaskParameters.validate_cell({**good, "data": data, "tasks": tasks, "scale": scale})
        assert (params.experiment().shipped is not None) == shipped
    wrongs = (
        ({"data": str(tmp_path / "data")}, "no folder with chunk"),
        ({"data_dir": ""}, "with -p data_dir FOLDER"),
        ({"engine": "dask"}, "engine="),
    )
    for wrong, said in wrongs:
        with pytest.raises(ParameterError, match=said):
            MultitaskParameters.validate_cell({**good, **wrong})


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path):
    target = tmp_path / "ran"
    torch.save({"obs": torch.zeros(2), "evil": Hostile(target)}, tmp_path / "evil.pt")
    with pytest.raises(ForeignFileError, match=r"evil.pt: refused, it asks for posix.system"):
        read_torch_file(tmp_path / "evil.pt")
    assert not target.exists()
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile(target)))
    with pytest.raises(ForeignFileError, match="not a complete file of torch.save"):
        read_torch_file(tmp_path / "plain.pt")
    assert not target.exists()


def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path):
    """Views, shared storages, parameters and every type, against torch's own reader."""
    base = torch.arange(24.0).reshape(4, 6)
    state = torch.nn.Linear(3, 2).state_dict()  # carries an attribute, _metadata
    types = (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    content = {
        "view": base[1:, ::2], "transposed": base.T, "same": base, "expanded": torch.ones(3, 1).expand(3, 5), "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(base.clone()), "state": state, 7: [1, -2, 3.5, True, (2**40, 5)],
        "types": [torch.ones(3).to(t) for t in types], "size": torch.Size([2, 3]), "nested": OrderedDict(a=OrderedDict(b=torch.eye(2))),
    }  # fmt: skip
    torch.save(content, tmp_path / "c.pt")
    read, expected = read_torch_file(tmp_path / "c.pt"), torch.load(tmp_path / "c.pt", weights_only=True)
    torch.testing.assert_close(read, expected, rtol=0, atol=0, check_stride=True)


def test_a_large_file_is_mapped_and_not_loaded(tmp_path):
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    torch.save({"obs": torch.arange(2.0**24)}, tmp_path / "c.pt")
    before = resident()
    obs = read_torch_file(tmp_path / "c.pt")["obs"]
    assert resident() - before < 2**23 and obs[-3:].tolist() == [2.0**24 - 3, 2.0**24 - 2, 2.0**24 - 1]


@pytest.mark.parametrize("notes", ["{", "[]", '{"chunk_0.pt": 7}', '{"chunk_0.pt": {"sha256": null}}', "[" * 99_999])
def test_damaged_notes_of_an_import_are_named(tmp_path, notes):
    torch.save(chunk(), tmp_path / "chunk_0.pt")
    (tmp_path / "imported.json").write_text(notes)
    with pytest.raises(ForeignFileError, match="imported.json: not the list of imported chunks; delete it"):
        import_chunks([tmp_path / "chunk_0.pt"], tmp_path, MT30, progress=False)


def test_truncated_and_missing_files_are_named(tmp_path):
    torch.save({"model": {"a": torch.zeros(1000)}}, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ForeignFileError, match=r"cut.pt: not a complete file of torch.save"):
        read_torch_file(tmp_path / "cut.pt")
    with pytest.raises(ForeignFileError, match="no such file"):
        read_torch_file(tmp_path / "nothing.pt")
    with zipfile.ZipFile(tmp_path / "empty.pt", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ForeignFileError, match="empty.pt: refused, it holds the entry 'hello'"):
        read_torch_file(tmp_path / "empty.pt")


def tdmpc2_state(model, new=False):
    """A state_dict in the public layout with the weights of `model`, and the parts that PWM drops."""
    state = OrderedDict()
    for key, value in model.state_dict().items():
        if key.startswith(("encoder.", "dynamics.", "reward_head.", "task_embedding.")):
            name = key.replace("encoder.", "_encoder.state.").replace("dynamics.", "_dynamics.")
            state[name.replace("reward_head.", "_reward.").replace("task_embedding.", "_task_emb.")] = value
    state["_pi.0.weight"], state["_Qs.params.0"], state["_target_Qs.params.0"] = torch.ones(3, 3), torch.ones(2, 3, 3), torch.ones(2, 3, 3)
    if new:
        state |= {"_action_masks": torch.ones(30, 6), "log_std_min": torch.tensor(-10.0), "log_std_dif": torch.tensor(12.0)}
        state |= {"_detach_Qs_params.0.weight": torch.ones(2, 3, 3), "_Qs.params.__batch_size": torch.Size([2])}
    return state


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("tasks, obs_dim, task_dim", [(MT30, 24, 64), (MT80, 39, 96)])
def test_tdmpc2_checkpoints_give_the_model_they_hold(tmp_path, tasks, obs_dim, task_dim, new):
    dims = [t.action_dim for t in tasks]
    torch.manual_seed(0)
    model = WorldModel(obs_dim, 6, tasks=len(tasks), action_dims=dims, config=dataclasses.replace(TINY, task_dim=task_dim))
    torch.save({"model": tdmpc2_state(model, new)}, tmp_path / "c.pt")
    read = load_released(tmp_path / "c.pt").world_model
    assert read.config == model.config and torch.equal(read.action_mask, model.action_mask)
    obs, action, task = torch.randn(5, obs_dim), torch.randn(5, 6), torch.tensor([0, 1, 10, 20, 29])
    z = model.encode(obs, task)
    torch.testing.assert_close(read.encode(obs, task), z)
    torch.testing.assert_close(read.reward(z, action, task), model.reward(z, action, task))
    torch.testing.assert_close(read.next(z, action, task), model.next(z, action, task))


def test_every_mis_shaped_tensor_is_reported(tmp_path):
    state = tdmpc2_state(WorldModel(24, 6, tasks=30, config=TINY))
    state["_reward.1.ln.bias"] = torch.zeros(7)
    del state["_dynamics.0.bias"]
    torch.save({"model": state}, tmp_path / "c.pt")
    report = (
        r"2 tensors do not fit a WorldModel: dynamics.0.bias: absent, expected \(32,\); reward_head.1.ln.bias: \(7,\), expected \(32,\)"
    )
    with pytest.raises(ForeignFileError, match=report):
        load_released(tmp_path / "c.pt")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(ForeignFileError, match="expected a TD-MPC2 checkpoint .* found weights dict"):
        load_released(tmp_path / "other.pt")


def test_pwm_agent_gives_actor_and_critics(tmp_path):
    """Actor by an independent forward pass: Linear, Mish, LayerNorm, as the public code has them."""
    g = torch.Generator().manual_seed(0)
    sizes, actor = [16, 12, 8, 6], {"logstd": torch.full((6,), -1.0)}
    x = torch.randn(5, 16, generator=g)
    h = x
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        w, bias = torch.randn(b, a, generator=g), torch.randn(b, generator=g)
        actor |= {f"mu_net.{3 * i}.weight": w, f"mu_net.{3 * i}.bias": bias}
        h = h @ w.T + bias
        if i < 2:
            scale, shift = torch.randn(b, generator=g), torch.randn(b, generator=g)
            actor |= {f"mu_net.{3 * i + 2}.weight": scale, f"mu_net.{3 * i + 2}.bias": shift}
            h = torch.nn.functional.layer_norm(torch.nn.functional.mish(h), (b,), scale, shift)
    critic = [
        torch.randn(3, 8, 16, generator=g),
        torch.randn(3, 8),
        torch.randn(3, 8),
        torch.randn(3, 8),
        torch.randn(3, 1, 8),
        torch.randn(3, 1),
    ]
    state = tdmpc2_state(WorldModel(24, 6, tasks=30, config=TINY))
    agent = {"actor": actor, "critic": {f"params.{i}": p for i, p in enumerate(critic)}, "world_model": state, "obs_rms": None}
    torch.save(agent, tmp_path / "agent.pt")
    read = load_released(tmp_path / "agent.pt")
    assert isinstance(read.actor, Actor) and len(read.sha256) == 64
    torch.testing.assert_close(read.actor(x), torch.tanh(h), atol=1e-5, rtol=1e-5)
    first = torch.einsum("moi,bi->mbo", critic[0], x) + critic[1][:, None]
    hidden = torch.nn.functional.layer_norm(torch.nn.functional.mish(first), (8,)) * critic[2][:, None] + critic[3][:, None]
    expected = (torch.einsum("moi,mbi->mbo", critic[4], hidden) + critic[5][:, None]).squeeze(-1)
    torch.testing.assert_close(read.critics(x), expected, atol=1e-5, rtol=1e-5)


@needs_samples
def test_sample_files_are_read():
    for name, tasks in (("mt30", MT30), ("mt80", MT80), ("mt30_2023style", MT30)):
        for path in sorted((SAMPLES / name).glob("chunk_*.pt")):
            content = read_torch_file(path)
            assert content["obs"].shape[2] == max(t.obs_dim for t in tasks)
    for path in sorted((SAMPLES / "ckpt").glob("mt*.pt")):
        assert load_released(path).world_model.tasks in (30, 80)
    agent = load_released(SAMPLES / "ckpt" / "pwm_agent_tiny.pt")
    assert agent.actor is not None and agent.critics is not None
    assert set(read_single_task_data(SAMPLES / "dflex" / "hopper_data.pt")) == {"obs", "action", "reward", "term"}
    with pytest.raises(ForeignFileError, match="refused"):
        read_torch_file(SAMPLES / "hostile_pickle.pt")


@needs_samples
def test_sample_chunks_are_imported(tmp_path):
    for name, tasks in (("mt30", MT30), ("mt80", MT80)):
        table = import_chunks(sorted((SAMPLES / name).glob("chunk_*.pt")), tmp_path / name, tasks, progress=False)
        some = next(t for t in tasks if t.name == table["task"][0])
        assert EpisodeStore(tmp_path / name, some).arrays()[0].shape[2] == some.obs_dim + some.action_dim + 1
