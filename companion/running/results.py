"""The committed tables of our own results, and where each came from."""

from __future__ import annotations

import json

import pandas as pd

from pwmlib.data.checkpoints import read_json, write_atomic

from .paths import PROJECT
from .runs import environment_stamp

__all__ = ["RESULTS", "save_table"]

RESULTS = PROJECT / "data" / "results"


def save_table(name: str, table: pd.DataFrame, command: str) -> None:
    """Write data/results/<name>.csv, and note its command, commit and versions in provenance.json beside it."""
    write_atomic(RESULTS / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    path = RESULTS / "provenance.json"
    known = read_json(path) if path.is_file() else {}
    known[name] = {"command": command, **environment_stamp()}
    write_atomic(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
