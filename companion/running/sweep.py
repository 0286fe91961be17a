"""What a sweep has done, does and still has to do: one line a stage with its runs and their cost, then each failed run and why.

    python -m companion.running.sweep status [--runs-dir runs]

A sweep is any set of runs that a notebook has planned; it can be stopped at any time, and the same command continues it: finished
runs are skipped, failed and interrupted ones begin again at their last checkpoint.
"""

import argparse
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from companion.running.runs import Run, digest, read_record
from pwmlib.data.checkpoints import locked, read_json, write_json

from .paths import resolve

STATES = ("finished", "running", "interrupted", "failed", "damaged", "missing")


def note_plan(runs_dir: str | Path, title: str, runs: Iterable[Run]) -> None:
    """Write down the runs of one stage of a sweep, for `status`; the same stage planned again replaces it."""
    runs = list(runs)
    plan = {"title": title, "runs": [{"stage": r.stage, "name": r.name, "folder": str(r.folder.relative_to(runs_dir))} for r in runs]}
    with locked(Path(runs_dir) / "plans"):
        write_json(Path(runs_dir) / "plans" / f"{title}-{digest([r.folder.name for r in runs])}.json", plan)


def status(runs_dir: str | Path) -> pd.DataFrame:
    """One line for every planned run: stage, name, status, reason, cpu_s so far.

    status: one of `STATES`; interrupted: its process is gone; damaged: see `read_record`.
    """
    plans = sorted((Path(runs_dir) / "plans").glob("*.json"))
    runs: dict[str, dict[str, Any]] = {}
    for run in (run for path in plans for run in read_json(path)["runs"]):
        runs.setdefault(run["folder"], run)  # a run of two plans is counted in the first
    rows = [{"stage": r["stage"], "name": r["name"], **_state(read_record(Path(runs_dir) / folder))} for folder, r in runs.items()]
    return pd.DataFrame(rows, columns=["stage", "name", "status", "reason", "cpu_s"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line a stage: runs by status, CPU-seconds so far up to each run's last checkpoint, and left if every run costs what the finished
    ones did on average."""
    rows = []
    for stage, group in table.groupby("stage", sort=False):
        counts = {s: int((group["status"] == s).sum()) for s in STATES}
        finished = group.loc[group["status"] == "finished", "cpu_s"]
        begun = group.loc[group["status"] != "finished", "cpu_s"].fillna(0.0)
        left = (finished.mean() - begun).clip(lower=0).sum(min_count=len(begun))
        rows.append({"stage": stage, **counts, "cpu_s": finished.sum() + begun.sum(), "cpu_s_left": left})
    return pd.DataFrame(rows)


def _state(record: Mapping[str, Any]) -> dict[str, Any]:
    state = record["status"]
    if state == "running" and not _alive(record):
        state = "interrupted"
    return {"status": state, "reason": record.get("reason", ""), "cpu_s": record.get("cpu_s", float("nan"))}


def _alive(record: Mapping[str, Any]) -> bool:
    """Say whether the run's process still exists; on another machine nothing can be said, so yes."""
    try:
        if record.get("host") == platform.node():
            os.kill(int(record["pid"]), 0)
    except (ProcessLookupError, KeyError):
        return False
    except PermissionError:
        pass
    return True


def main() -> None:
    """Print the status."""
    parser = argparse.ArgumentParser(
        "python -m companion.running.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["status"], help="print the table")
    parser.add_argument("--runs-dir", default="runs", help="the notebook's runs_dir, from the project's folder (default: runs)")
    runs_dir = resolve(parser.parse_args().runs_dir)
    table = status(runs_dir)
    if table.empty:
        sys.exit(f"{runs_dir}: no sweep was planned there")
    print(summary(table).to_string(index=False, float_format="%.0f"))
    for row in table[table["status"].isin(["failed", "damaged"])].itertuples():
        print(f"{row.status}: {row.stage} {row.name}: {row.reason}")


if __name__ == "__main__":
    main()
