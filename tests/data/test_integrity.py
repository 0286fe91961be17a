"""What is read back is what was written: damaged files are named or made again, old files without checksums still read."""

import errno
import io
import json
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from companion.mt80.episodes import generate_task
from companion.mt80.scales import DataPlan
from companion.mt80.shipped_model import Artefacts, ship
from companion.running import runs
from companion.running.runs import Run
from companion.running.sweep import note_plan, status
from pwmlib.data import Episode, EpisodeFileError, EpisodeStore, checkpoints
from pwmlib.data.checkpoints import CheckpointError, WriteError, load_state, save_state, write_atomic
from pwmlib.errors import ExplainedError
from pwmlib.model.world_model import WorldModel, WorldModelConfig
from pwmlib.tasks import task

T = task("mw-reach")
SMALL = WorldModelConfig(latent_dim=8, encoder_hidden=(8,), dynamics_hidden=(8,), reward_hidden=(8,), task_dim=2, two_hot=None)
STEPS = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What takes time in a run of no work: looking for versions and the commit, and waiting for the disk."""
    monkeypatch.setattr(runs, "environment_stamp", lambda: {"commit": "abc"})
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Stage:
    """A resumable run that leaves a checkpoint and a table for the next stage."""

    def __init__(self, root, until=STEPS):
        self.run, self.until, self.begun_at = Run(root, "stage", "name", {}), until, []

    def work(self, run):
        saved = run.load_checkpoint() or {"step": 0, "weights": torch.zeros(5, dtype=torch.float64)}
        step, weights = saved["step"], saved["weights"]
        self.begun_at.append(step)
        while step < STEPS:
            step, weights = step + 1, weights * 0.9 + torch.arange(5) / 7
            run.log(step=step, total=float(weights.sum()))
            run.save_checkpoint({"step": step, "weights": weights})
            if step == self.until:
                raise KeyboardInterrupt
        write_atomic(run.folder / "table.csv", pd.DataFrame({"w": weights.numpy()}).to_csv(index=False))
        return {"weights": weights.tolist()}

    def read(self):
        """All that another stage can read, as text."""
        result, folder = self.run.execute(self.work), self.run.folder
        return repr((result, (folder / "table.csv").read_text(), load_state(folder / "state.safetensors")))


def finished(root):
    Stage(root, until=None).read()
    return lambda: Stage(root, until=None).read()


def interrupted(root):
    with pytest.raises(KeyboardInterrupt):
        Stage(root, until=2).read()
    return lambda: Stage(root, until=None).read()


def checkpoint(root):
    torch.manual_seed(0)
    path = root / "state.safetensors"
    state = {"a": torch.randn(3, 4), "b": torch.arange(7), "c": torch.ones(3, dtype=torch.bfloat16), "n": [1, "x", (None, 2.5, True)]}
    save_state(path, state)
    return lambda: repr({k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in load_state(path).items()})


def episodes(n):
    rows = np.random.default_rng(0).standard_normal((n, T.decisions + 1, T.obs_dim + T.action_dim + 1)).astype(np.float32)
    return [Episode(r, "made_up", i, i % 2 == 0, True) for i, r in enumerate(rows)]


def stored(root):
    rows, described = EpisodeStore(root, T).read("a")
    return repr((rows.tobytes(), rows.shape, described, EpisodeStore(root, T)._fingerprint()))


def shard(root):
    EpisodeStore(root, T).write("a", episodes(2))
    return lambda: stored(root)


def shard_again(root):
    def read():
        store = EpisodeStore(root, T)
        if not store.has("a"):
            store.write("a", episodes(2))
        return stored(root)

    read()
    return read


def shipped(root):
    EpisodeStore(root / "data", T).write("a", episodes(1))
    torch.manual_seed(0)
    model = WorldModel(T.obs_dim, T.action_dim, tasks=1, action_dims=[T.action_dim], config=SMALL)
    tables = {"data": pd.DataFrame({"task": [T.name], "data_p90": [0.1]})}
    ship(root / "models", model, [EpisodeStore(root / "data", T)], tables=tables, settings={}, command="test", states=3)
    for path in (root / "data" / T.name).iterdir():
        path.unlink()

    def read():
        found = Artefacts(root / "models")
        weights = [v.tolist() for v in found.world_model().state_dict().values()]
        assert found.fingerprint
        return repr((found.card["tasks"], weights, found.starts[T.name].tolist(), found.table("data").to_csv()))

    return read


def visible(root):
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))


@pytest.mark.parametrize(
    ("made", "flips"), [(checkpoint, 120), (finished, 120), (interrupted, 40), (shard, 100), (shard_again, 60), (shipped, 60)]
)
def test_no_flipped_bit_gives_another_result_in_silence(made, flips, tmp_path):
    """500 single-bit flips, one at a time: the same result, one made again that is the same, or an error that names the file."""
    rng, read = np.random.default_rng(0), made(tmp_path)
    kept = {path: path.read_bytes() for path in visible(tmp_path)}
    expected, differing, raw = read(), [], []
    for _ in range(flips):
        for path in {*visible(tmp_path), *kept}:
            path.write_bytes(kept[path]) if path in kept else path.unlink()
        checkpoints._checked.clear()  # as in a new process
        path = list(kept)[rng.integers(len(kept))]
        damaged, bit = bytearray(kept[path]), rng.integers(8 * len(kept[path]))
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if read() != expected:
                    differing.append((path.name, bit))
        except ExplainedError as error:
            if path.stem not in str(error):
                raw.append((path.name, bit, error))
        except Exception as error:
            raw.append((path.name, bit, error))
    assert not differing and not raw


DAMAGE = {
    "result.json": [b"", b'{"result": {"wei', None, b"[]", b"{}"],
    "run.json": [b"", b'{"status": "fini', b"[]", b"{}"],
    "table.csv": [None, b"w\n0.0\n"],
    "state.safetensors": [None, b"", b"x" * 200],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, contents in DAMAGE.items() for content in contents])
def test_a_finished_run_with_a_damaged_file_is_done_again(name, content, tmp_path):
    stage = Stage(tmp_path, until=None)
    note_plan(tmp_path, "stage", [stage.run])
    expected = stage.read()
    path = stage.run.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    line = status(tmp_path).iloc[0]
    assert (
        line["status"] == stage.run.status == "damaged"
        and name in line["reason"]
        and line["reason"] == runs.read_record(stage.run.folder)["reason"]
    )
    again = Stage(tmp_path, until=None)
    with pytest.warns(UserWarning) as warned:
        assert again.read() == expected
    assert name in str(warned[0].message) and "The run is done again" in str(warned[0].message)
    assert again.begun_at == [0 if name == "state.safetensors" else STEPS], "from its checkpoint, where it has one"
    assert again.run.status == status(tmp_path).iloc[0]["status"] == "finished" and "reason" not in runs.read_record(again.run.folder)
    assert again.read() == expected and len(again.begun_at) == 1


def test_a_damaged_checkpoint_is_named_to_those_who_need_it(tmp_path):
    stage = Stage(tmp_path, until=None)
    stage.read()
    path = stage.run.folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"state\.safetensors: .*Delete the folder .*stage/name-\w+ to have that run made again"):
        stage.run.load_checkpoint()


def test_a_run_killed_between_its_checkpoint_and_its_metrics_has_all_metrics_in_the_end(tmp_path):
    stage = Stage(tmp_path, until=STEPS)
    with pytest.raises(KeyboardInterrupt):
        stage.read()
    path = stage.run.folder / "metrics.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    Stage(tmp_path, until=None).read()
    assert pd.read_csv(path)["step"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["bit", "missing", "description"])
def test_damaged_episodes_are_generated_again(damage, tmp_path):
    plan = DataPlan(metaworld={"uniform_random": 2}, replay=None, shard=1)
    generate_task("mw-reach", plan, str(tmp_path))
    store = EpisodeStore(tmp_path, T)
    rows, meta = (store.folder / f"uniform_random-00001.{suffix}" for suffix in ("npy", "json"))
    content, described, identity = rows.read_bytes(), meta.read_bytes(), store._fingerprint()
    if damage == "bit":
        rows.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "missing":
        rows.unlink()
    else:
        meta.write_bytes(described.replace(b'"seed": ', b'"seed": 1'))
    with pytest.raises(EpisodeFileError, match="uniform_random-00001"):
        store.read("uniform_random-00001")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert generate_task("mw-reach", plan, str(tmp_path)) == 1
    assert (rows.read_bytes(), meta.read_bytes(), store._fingerprint()) == (content, described, identity)
    assert generate_task("mw-reach", plan, str(tmp_path)) == 0


def as_npy(rows, save=np.save):
    buffer = io.BytesIO()
    save(buffer, rows)
    return buffer.getvalue()


ROWS = np.stack([e.rows for e in episodes(2)])
STRANGE = {
    "another shape": as_npy(ROWS.reshape(1, -1, ROWS.shape[-1])),
    "other numbers": as_npy(ROWS.view(np.int32)),
    "Fortran order": as_npy(np.asfortranarray(ROWS)),
    "float64": as_npy(np.zeros((3, 4))),
    "an archive": as_npy(ROWS, np.savez),
    "no array": b"x" * 100,
    "half a header": as_npy(ROWS)[:20],
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_an_array_of_another_kind_is_refused_without_a_checksum_too(content, tmp_path):
    store = EpisodeStore(tmp_path, T)
    store.write("a", episodes(2))
    meta = json.loads((store.folder / "a.json").read_text())
    old = {k: meta[k] for k in ("task", "shape", "generator_version", "episodes")} | {"bytes": len(content)}
    (store.folder / "a.json").write_text(json.dumps(old))
    (store.folder / "a.npy").write_bytes(content)
    with pytest.raises(EpisodeFileError, match=r"a\.npy: not (the|a)"):
        store.read("a")


@pytest.mark.parametrize(
    "description", ["[]", "3", '{"task": "mw-reach"}', '{"task": "mw-reach", "shape": 1, "bytes": null, "episodes": []}']
)
def test_a_description_of_another_kind_is_named(description, tmp_path):
    store = EpisodeStore(tmp_path, T)
    write_atomic(store.folder / "a.json", description)
    with pytest.raises(EpisodeFileError, match=r"a\.json"):
        store.read("a")


@pytest.mark.parametrize("tree", ["{}", '{"$map": 3}', '{"$map": [[1, {"$tensor": "b"}]]}', '{"$list": [{"x": 1}]}', "[" * 100_000])
def test_a_state_of_another_kind_is_named(tree, tmp_path):
    path = tmp_path / "state.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, {"format": "pwmlib-state-1", "tree": tree}))
    with pytest.raises(CheckpointError, match=r"state\.safetensors: not a complete safetensors state"):
        load_state(path)


def strip(path):
    """A file as it was written before there were checksums."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        old = {k: v for k, v in content.items() if k not in ("crc32", "files", "rows_crc32")}
        path.write_text(json.dumps(old, indent=1))
    elif path.suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        path.write_bytes(safetensors.torch.save(tensors, {k: v for k, v in metadata.items() if k != "crc32"}))


@pytest.mark.parametrize("made", [finished, interrupted, checkpoint, shard, shipped])
def test_files_without_checksums_still_read(made, tmp_path):
    expected, read = made(tmp_path / "new")(), made(tmp_path / "old")
    for path in visible(tmp_path / "old"):
        strip(path)
    assert read() == expected


def test_the_same_episodes_have_the_fingerprint_they_had_before_there_were_checksums(tmp_path):
    import hashlib

    store = EpisodeStore(tmp_path, T)
    store.write("a", episodes(2))
    meta = json.loads((store.folder / "a.json").read_text())
    text = json.dumps({k: meta[k] for k in ("task", "shape", "bytes", "generator_version", "episodes")}, indent=1)
    assert store.fingerprint() == hashlib.sha256(json.dumps([("a", text)]).encode()).hexdigest()[:10]


WRITERS = {
    "run": lambda root: Run(root, "stage", "name", {}).execute(lambda run: 1),
    "plan": lambda root: note_plan(root, "stage", []),
    "shard": lambda root: EpisodeStore(root, T).write("a", episodes(1)),
    "file": lambda root: write_atomic(root / "x.txt", "x"),
}


PROBLEMS = {"not a folder": "Not a directory|File exists", "read-only": "Read-only file system", "full": "No space left on device"}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_cannot_be_written_is_named(writer, problem, tmp_path, monkeypatch):
    root = tmp_path / "there"

    def refuse(*arguments, **options):
        raise OSError({"full": errno.ENOSPC, "read-only": errno.EROFS}[problem], PROBLEMS[problem])

    if problem == "not a folder":
        root.write_text("a file")
    elif problem == "full":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(os, "open", refuse)  # of the lock
        monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(WriteError, match=f"{root}.* be written.*({PROBLEMS[problem]})"):
        WRITERS[writer](root)


@pytest.mark.parametrize("writer", ["run", "plan", "shard"])
def test_what_a_kill_left_half_written_is_removed_at_the_next_start(writer, tmp_path):
    WRITERS[writer](tmp_path)
    (folder,) = {path.parent for path in visible(tmp_path)}
    left = [folder / name for name in (".state.safetensors.0123abcd", ".a.npy.ffffffff")]
    others = [folder / ".hidden", folder / ".lock"]
    for path in (*left, *others):
        path.write_bytes(b"half")
    for path in visible(tmp_path):
        path.unlink()
    WRITERS[writer](tmp_path)
    assert visible(tmp_path) and not any(path.exists() for path in left) and all(path.exists() for path in others)
