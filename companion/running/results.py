"""The committed tables of our own results, in a folder a section, and where each came from."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from companion.running.stamp import environment_stamp
from pwmlib.data.checkpoints import read_json, write_atomic

from .paths import DATA

RESULTS = DATA / "results"


class TableNotRecordedError(FileNotFoundError):
    """A table that no folder of data/results holds; its name is `filename`."""


def results_paths(pattern: str) -> list[Path]:
    """Files of the recorded tables whose names match, e.g. "single_task_*_curves", in alphabetical order."""
    return sorted(RESULTS.glob(f"*/{pattern}.csv"))


def results_path(name: str) -> Path:
    """File of a recorded table, whatever its section.

    Raises:
        TableNotRecordedError: No folder of data/results holds it.
    """
    for path in results_paths(name):
        return path
    raise TableNotRecordedError(2, f"not recorded in any folder of {RESULTS}", name)


def results_table(name: str) -> pd.DataFrame:
    """Read a recorded table. Raises TableNotRecordedError."""
    return pd.read_csv(results_path(name))


def provenance() -> dict[str, Any]:
    """Name of a recorded table -> command, commit and versions that made it."""
    path = RESULTS / "provenance.json"
    return read_json(path) if path.is_file() else {}


def save_table(name: str, table: pd.DataFrame, command: str) -> None:
    """Write data/results/<name>.csv (name: "ball_wall/ball_wall_ends"), and note its command, commit and versions in provenance.json."""
    write_atomic(RESULTS / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    known = {**provenance(), Path(name).name: {"command": command, **environment_stamp()}}
    write_atomic(RESULTS / "provenance.json", json.dumps(known, indent=1, sort_keys=True) + "\n")
