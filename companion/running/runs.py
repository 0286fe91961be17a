"""Run folders: parameters, tidy metrics, checkpoint, provenance. Finished runs are skipped, interrupted ones continue.

<root>/<stage>/<name>-<hash of the parameters>/
    params.json       what the run was asked to do; its hash is in the folder's name
    run.json          status (running, finished, failed), reason, commit (and those of earlier starts), versions, device, times
    metrics.csv       tidy, one line per logged step; where PWM_TENSORBOARD is set, TensorBoard's event files beside it
    state.safetensors last checkpoint; holds the metrics logged so far, so that both always agree
    result.json       what the run returned, and checksums of the files that it left; written last

A run is finished when run.json says so and result.json and those files read back whole. One that is damaged is done again, from its
checkpoint or, where that is damaged, from nothing.
"""

import dataclasses
import hashlib
import json
import os
import platform
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from companion.running.stamp import environment_stamp
from pwmlib.data.checkpoints import (
    CheckpointError,
    check_file,
    checksums,
    load_state,
    locked,
    read_json,
    save_state,
    write_atomic,
    write_json,
)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as JSON values, with dictionary keys in order.

    A field with metadata {"later": True} is left out at its default, so that runs from before it was there keep their names.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: plain(v) for f, v in named if not ("later" in f.metadata and v == f.default)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def digest(value: Any) -> str:
    """Ten hexadecimal digits that identify a JSON-like value."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:10]


def resolve_device(device: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU. Raises ValueError for a device that torch does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be 'auto', 'cpu' or a device that this torch can use, got {device!r} ({error})") from None
    return found


@contextmanager
def single_thread() -> Iterator[None]:
    """One torch thread inside: for small tensors more are slower, on a busy machine many times so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a run's folder; its status is "missing" where there is none, "damaged" (with the reason) where it, or what a finished run
    left, does not read back whole."""
    record: dict[str, Any] = {}
    try:
        if not (folder / "run.json").exists():
            return {"status": "missing"}
        record = read_json(folder / "run.json")
        if "status" not in record:
            raise CheckpointError(f"{folder / 'run.json'}: holds no status")
        if record["status"] == "finished":
            found = read_json(folder / "result.json")
            if "result" not in found:
                raise CheckpointError(f"{folder / 'result.json'}: holds no result")
            for name, checksum in found.get("files", {}).items():
                check_file(folder / name, checksum)
    except CheckpointError as error:
        return {**record, "status": "damaged", "reason": str(error)}
    return record


class Run:
    """One unit of work, identified by its stage, name and parameters."""

    def __init__(self, root: str | Path, stage: str, name: str, params: Any):
        self.params = plain(params)
        self.stage, self.name = stage, name
        self.folder = Path(root) / stage / f"{name}-{digest(self.params)}"
        self.rows: list[dict[str, Any]] = []
        self._stamp: dict[str, Any] = {}  # of run.json, while the work is done
        self._begun = (0.0, 0.0)

    @property
    def status(self) -> str:
        """ "missing", "running" (perhaps interrupted), "failed", "damaged" or "finished"."""
        return read_record(self.folder)["status"]

    @property
    def result(self) -> Any:
        """What a finished run returned. Raises CheckpointError where that does not read back."""
        return read_json(self.folder / "result.json")["result"]

    def execute(self, work: Callable[["Run"], Any], *, always: bool = False) -> Any:
        """Return the stored result of a finished run; else do the work, from its last checkpoint if there is one.

        always: also that of a finished run, for work that itself does only what is missing somewhere else.
        A second process that wants the same run waits for the first and takes its result. Raises WriteError where its folder cannot be
        written.
        """
        if self.status == "finished" and not always:
            return self.result
        with locked(self.folder):
            earlier = read_record(self.folder)
            if earlier["status"] == "finished" and not always:
                return self.result
            if earlier["status"] == "damaged":
                warnings.warn(f"{earlier['reason']}. The run is done again.", stacklevel=2)
            return self._work(work, earlier)

    def _work(self, work: Callable[["Run"], Any], earlier: Mapping[str, Any]) -> Any:
        self.rows = []
        write_atomic(self.folder / "params.json", json.dumps(self.params, indent=1))
        self._begun = (time.time() - earlier.get("wall_s", 0.0), time.process_time() - earlier.get("cpu_s", 0.0))
        process = {"pid": os.getpid(), "host": platform.node()}
        self._stamp = {"started": earlier.get("started", time.time()), **process, **environment_stamp()}
        commits = [*earlier.get("earlier_commits", []), earlier.get("commit")]
        self._stamp["earlier_commits"] = [c for c in dict.fromkeys(commits) if c and c != self._stamp["commit"]]
        self._record("running")
        try:
            result = plain(work(self))
            self._write_metrics()  # a kill between the last checkpoint and its metrics left older ones
            files = {name: checksum for name, checksum in checksums(self.folder, but="result.json").items() if name != "run.json"}
            write_json(self.folder / "result.json", {"result": result, "files": files})
            self._record("finished")
            return result
        except Exception as error:
            self._record("failed", reason=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
            raise
        finally:
            self._stamp = {}

    def _record(self, status: str, **details: str) -> None:
        """Write run.json. wall_s and cpu_s are those of all starts up to here."""
        used = {"wall_s": round(time.time() - self._begun[0], 1), "cpu_s": round(time.process_time() - self._begun[1], 1)}
        write_json(self.folder / "run.json", {"status": status, **details, **used, **self._stamp})

    def forget(self) -> None:
        """Have `execute` do the work again although it was finished: something that it wrote elsewhere is gone."""
        (self.folder / "run.json").unlink(missing_ok=True)

    def log(self, **row: Any) -> None:
        """Add a line to the metrics; it is on disk at the next checkpoint."""
        self.rows.append(row)

    def _write_metrics(self) -> None:
        if self.rows:
            write_atomic(self.folder / "metrics.csv", pd.DataFrame(self.rows).to_csv(index=False))
        if not self.rows or not os.environ.get("PWM_TENSORBOARD"):
            return
        # TensorBoard's events of all that was logged so far, in place of those of before.
        from torch.utils.tensorboard import SummaryWriter

        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(self.folder) as events:
            for i, row in enumerate(self.rows):
                step = row.get("step", row.get("updates", i))
                for name, value in row.items():
                    if isinstance(value, (int, float)):
                        events.add_scalar(name, value, int(step))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write state and metrics together; a kill leaves the previous pair. What the run has cost so far is noted with them."""
        save_state(self.folder / "state.safetensors", {"state": dict(state), "rows": self.rows})
        self._write_metrics()
        if self._stamp:
            self._record("running")

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last state, or None; the metrics go back to that moment.

        A damaged one is None too, with a warning, for the run's own work, which then begins from nothing: there is no older one to go back
        to. Anybody else gets the CheckpointError.
        """
        path = self.folder / "state.safetensors"
        if not path.is_file():
            return None
        try:
            saved = load_state(path)
        except CheckpointError as error:
            if not self._stamp:
                raise CheckpointError(f"{error}. Delete the folder {self.folder} to have that run made again.") from None
            warnings.warn(f"{error}. The run begins again from nothing.", stacklevel=2)
            return None
        self.rows = list(saved["rows"])
        return saved["state"]

    @staticmethod
    def checkpoint_in(folder: str | Path) -> dict[str, Any]:
        """The last state in a run's folder. Raises CheckpointError where there is none, or a damaged one."""
        return load_state(Path(folder) / "state.safetensors")["state"]


class Together:
    """A learner and what its checkpoints hold beside it, as one that `train` drives; the first part is the learner."""

    def __init__(self, **parts: Any):
        self.parts = parts
        self.learner = next(iter(parts.values()))
        self.update = self.learner.update

    @property
    def step(self) -> int:
        return self.learner.step

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def train(
    run: Run, learner: Any, updates: int, *, checkpoint_every: int, log_every: int = 50,
    evaluate: Callable[[int], dict[str, Any]] | None = None, evaluate_every: int = 0, progress: Callable[[int], None] | None = None,
) -> None:  # fmt: skip
    """Drive a learner to `updates`, from the run's checkpoint if there is one, saving as it goes and at the end.

    learner: has step, update(), which returns metrics, state_dict() and load_state_dict(state), such as PWM or WorldModelTrainer.
    evaluate(step): extra columns, logged every `evaluate_every` updates. When an update raises, the state that it leaves is saved first.
    """
    for name, value in {"checkpoint_every": checkpoint_every, "log_every": log_every}.items():
        if value < 1:
            raise ValueError(f"train: {name}={value} is not allowed: must be at least 1")
    saved = run.load_checkpoint()
    if saved is not None:
        learner.load_state_dict(saved)
    progress = progress or (lambda step: None)
    progress(learner.step)
    while learner.step < updates:
        try:
            metrics = learner.update()
        except Exception:
            run.save_checkpoint(learner.state_dict())
            raise
        step = learner.step
        progress(step)
        evaluated = evaluate(step) if evaluate and evaluate_every and (step % evaluate_every == 0 or step == updates) else {}
        if evaluated or step % log_every == 0 or step == updates:
            run.log(step=step, **metrics, **evaluated)
        if step % checkpoint_every == 0 or step == updates:
            run.save_checkpoint(learner.state_dict())
